-- Queue: Healthy while it admits, Suspended while spec.stop keeps it from that, Degraded when its flavors contradict others'.
local status = obj.status
if status == nil or status.observedGeneration == nil or status.observedGeneration < obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen this generation yet"}
end

for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" and condition.status == "True" then
    return {status = "Healthy", message = status.admitted .. " admitted, " .. status.waiting .. " waiting"}
  end
  if condition.type == "Ready" then
    local message = condition.reason .. ": " .. condition.message
    if obj.spec.stop == "Hold" or obj.spec.stop == "Drain" then
      return {status = "Suspended", message = message}
    end
    return {status = "Degraded", message = message}
  end
end
return {status = "Progressing", message = "the operator has not said yet whether it admits"}
