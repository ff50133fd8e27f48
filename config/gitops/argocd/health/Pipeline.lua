-- Pipeline: as its latest run. Degraded when that failed or the Pipeline is not valid, Suspended while it waits for a person.
local status = obj.status
if status == nil or status.observedGeneration == nil or status.observedGeneration < obj.metadata.generation then
  return {status = "Progressing", message = "the operator has not seen this generation yet"}
end

local condition = {}
for _, one in ipairs(status.conditions or {}) do
  condition[one.type] = one
end

if condition.Stalled ~= nil and condition.Stalled.status == "True" then
  return {status = "Degraded", message = condition.Stalled.reason .. ": " .. condition.Stalled.message}
end
local run = status.latestRun
if run ~= nil and run.phase == "Failed" then
  local message = "run " .. run.name .. " failed"
  local verdict = condition.LastRunSucceeded
  if verdict ~= nil and verdict.status == "False" then
    message = verdict.reason .. ": " .. verdict.message
  end
  return {status = "Degraded", message = message}
end
if obj.spec.suspend then
  return {status = "Suspended", message = "spec.suspend is true: a change makes no run"}
end
if run == nil then
  local ready = condition.Ready
  if ready == nil or ready.status ~= "True" then
    return {status = "Progressing", message = "its run is being made"}
  end
  return {status = "Healthy", message = ready.message}
end
if run.phase == "Completed" then
  return {status = "Healthy", message = "run " .. run.name .. " completed"}
end
if run.phase == "Cancelled" then
  return {status = "Suspended", message = "run " .. run.name .. " was cancelled: a change, or a new value of spec.rerun, makes another"}
end
if run.reason ~= nil then
  return {status = "Suspended", message = "run " .. run.name .. ": " .. run.reason}
end
return {status = "Progressing", message = "run " .. run.name .. " has not ended"}
