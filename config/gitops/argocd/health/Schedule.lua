-- Schedule: Healthy while runs are made at their times, Suspended by spec.suspend, Degraded when it is not valid.
local status = obj.status
if status == nil or status.observedGeneration == nil or status.observedGeneration < obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen this generation yet"}
end

local condition = {}
for _, one in ipairs(status.conditions or {}) do
  condition[one.type] = one
end

local ready = condition.Ready
if ready == nil then
  return {status = "Progressing", message = "the operator has not said yet whether it is ready"}
end
local message = ready.reason .. ": " .. ready.message
if condition.Stalled ~= nil and condition.Stalled.status == "True" then
  return {status = "Degraded", message = message}
end
if obj.spec.suspend then
  return {status = "Suspended", message = message}
end
if ready.status == "True" then
  return {status = "Healthy", message = message}
end
return {status = "Progressing", message = message}
