-- Approval: an answer, without a status. Whether it counts stands in the status of its run.
return {status = "Healthy", message = obj.spec.verdict .. " of stage " .. obj.spec.stage .. " by " .. obj.spec.by}
