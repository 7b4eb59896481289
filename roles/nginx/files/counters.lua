-- What clients have open, and how often they may ask: counts that all workers share.
-- A total has shares, one of each worker, so that what a worker had is known after it was killed.
local ffi = require "ffi"

ffi.cdef [[
    typedef struct { long seconds; long nanoseconds; } rackserve_time;
    int clock_gettime(int clock, rackserve_time *now);
]]

-- Seconds between two looks at the shares; a difference that two looks find is corrected.
local LOOK_SECONDS = 5
local CLOCK_MONOTONIC = 1

local counters = {}
local totals, shares = ngx.shared.rackserve, ngx.shared.rackserve_shares
local time = ffi.new("rackserve_time[1]")
-- Requests, the sequences that they generate, the bytes of their bodies, and requests that wait for an instance.
local KINDS = { "open", "sequences", "held", "waiting" }
local me, clients
local drifts = {}

-- Seconds of a clock that nobody sets; ngx.now() is that of the host, which steps when NTP corrects it.
function counters.now()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, time)
    return tonumber(time[0].seconds) + tonumber(time[0].nanoseconds) / 1e9
end

-- When a process began, by which it differs from a later one with its ID; nothing if there is none, or a zombie.
local function begin_of(pid)
    local file = io.open("/proc/" .. pid .. "/stat", "r")
    local stat = file and file:read("*a")
    if file then
        file:close()
    end
    local fields = {}
    for field in (stat or ""):gsub("^.*%)", ""):gmatch("%S+") do
        table.insert(fields, field)
    end
    return fields[1] ~= "Z" and fields[20] or nil
end

-- Add to a client's count of a kind; returns the total of all workers.
function counters.take(kind, name, amount)
    local key = kind .. "/" .. name
    shares:incr(key .. "|" .. me, amount, 0)
    return assert(totals:incr(key, amount, 0))
end

-- Take back what was added.
function counters.give(kind, name, amount)
    local key = kind .. "/" .. name
    local left = shares:incr(key .. "|" .. me, -amount, 0)
    if left and left <= 0 then
        shares:delete(key .. "|" .. me)
    end
    totals:incr(key, -amount)
end

function counters.total(kind, name)
    return totals:get(kind .. "/" .. name) or 0
end

-- Remove the shares of workers that are gone and correct totals that differ from their shares. A worker may be between
-- the two steps of `take` or `give` during one look, but not with the same difference during two.
local function look()
    local alive, sums = {}, {}
    for _, key in ipairs(shares:get_keys(0)) do
        local total, pid, begin = key:match("^(.*)|(%d+)%-(%d+)$")
        if alive[pid .. begin] == nil then
            alive[pid .. begin] = begin == "0" or begin_of(pid) == begin
        end
        if alive[pid .. begin] then
            sums[total] = (sums[total] or 0) + (shares:get(key) or 0)
        else
            shares:delete(key)
        end
    end
    for name in pairs(clients) do
        for _, kind in ipairs(KINDS) do
            local total = kind .. "/" .. name
            local drift = (totals:get(total) or 0) - (sums[total] or 0)
            if drift ~= 0 and drift == drifts[total] then
                totals:incr(total, -drift)
                drift = 0
            end
            drifts[total] = drift
        end
    end
end

-- Begin to count in this worker, and to look after the counts in the first. Helpers of nginx's own have no ID.
function counters.start_worker(known)
    if not ngx.worker.id() then
        return
    end
    clients = known.clients
    me = ngx.worker.pid() .. "-" .. (begin_of(ngx.worker.pid()) or 0)
    if ngx.worker.id() == 0 then
        assert(ngx.timer.every(LOOK_SECONDS, look))
    end
end

-- Seconds until a client may send another request, 0 for now, by the generic cell rate algorithm: `due` is the
-- request's theoretical arrival time. Every step is atomic across workers.
function counters.wait(client, name)
    local now, step, key = counters.now(), client.seconds_per_request, "due/" .. name
    local due = assert(totals:incr(key, step, now))
    if due - step < now - 0.0005 then -- the key should have expired, but the host's clock stepped
        due = now + step
        totals:set(key, due)
    end
    local early = due - now - step * (client.burst + 1)
    -- More than the requests that other workers refuse at this moment: the limit was lowered.
    if early > 2 * step * ngx.worker.count() then
        totals:set(key, now + step)
        return 0
    end
    if early > 0.0005 then
        totals:incr(key, -step)
        return early
    end
    totals:expire(key, math.max(due - now, 0.001))
    return 0
end

return counters
