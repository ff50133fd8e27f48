-- Experiment: Healthy when it has completed, Degraded when it has ended otherwise or cannot start.
local status = obj.status
if status == nil or status.observedGeneration == nil or status.observedGeneration < obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen this generation yet"}
end

local is = {}
for _, condition in ipairs(status.conditions or {}) do
  is[condition.type] = condition.status == "True"
end

local message = status.message
if message == nil or message == "" then
  message = status.phase
end
if status.reason ~= nil then
  message = status.reason .. ": " .. message
end

if is.Stalled then
  return {status = "Degraded", message = message}
end
if is.Complete then
  if status.reusedFrom ~= nil then
    message = "Completed with the result of " .. status.reusedFrom.name
  end
  return {status = "Healthy", message = message}
end
return {status = "Progressing", message = message}
