-- ArtifactStore: a setting, without a status. What is wrong with a store is said by the Experiments that use it.
return {status = "Healthy", message = obj.spec.url}
