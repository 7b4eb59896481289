-- Which instances get requests. A reload replaces the workers, and those from before end what they have with the
-- configuration from before; what the new ones have loaded is in a dictionary that all of them share.
local cjson = require "cjson.safe"
local counters = require "counters"
local metrics = require "metrics"

-- Seconds between two looks of a held request at the rotation.
local STEP = 0.1
local rotation = {}
local shared = ngx.shared.rackserve_rotation
-- The rotation of this worker's configuration, its text, and the latest that any worker has loaded.
local own, own_text, latest, hold, clients

-- Read the rotation, which is JSON in the second line of the upstreams. An error here fails `nginx -t`.
function rotation.load(path, known)
    local file = assert(io.open(path, "r"))
    file:read("*l")
    own_text = assert((file:read("*l") or ""):match("^# ({.*})$"), path .. " has no rotation in its second line")
    file:close()
    own = assert(cjson.decode(own_text))
    latest, hold, clients = own, known.hold, known.clients
    metrics.rotate(own.servers)
end

-- Tell the workers from before what this one has loaded.
function rotation.start_worker()
    if ngx.worker.id() then
        assert(shared:set("text", own_text))
        assert(shared:set("digest", own.digest))
    end
end

function rotation.digest()
    return own.digest
end

local function current()
    local digest = shared:get("digest")
    if digest and digest ~= latest.digest then
        local found = cjson.decode(shared:get("text") or "")
        latest = found and found.digest == digest and found or latest
    end
    return latest
end

-- Whether it is the turn of the instances with a share: exactly so many of all requests are, counted by all workers.
local function is_turn(group, share)
    local number = share > 0 and shared:incr("turn/" .. group, 1, 0)
    return number and math.floor(number * share) > math.floor((number - 1) * share)
end

-- In a worker from before a reload, return the upstream of one instance that is in rotation now.
local function alone(group, now)
    local found = {}
    for _, label in ipairs(own.groups[group].servers) do
        local server = now.servers[label]
        if server and server.weight > 0 and server.upstream == own.servers[label].upstream then
            table.insert(found, server.upstream)
        end
    end
    return found[(shared:incr("turn/" .. group, 1, 0) or 0) % math.max(1, #found) + 1]
end

-- Return the upstream for a request to a group, and the one for a request with affinity; nothing where no instance of
-- the group is in rotation.
function rotation.upstream(group)
    local now, mine = current(), own.groups[group]
    if now.digest ~= own.digest then
        return alone(group, now)
    end
    local any = false
    for _, label in ipairs(mine.servers) do
        any = any or own.servers[label].weight > 0
    end
    if not any then
        return nil
    elseif is_turn(group, mine.share) then
        return group .. "_share"
    end
    return group, mine.affine and group .. "_affine" or nil
end

local function held()
    local sum = 0
    for name in pairs(clients) do
        sum = sum + counters.total("waiting", name)
    end
    return sum
end

local function release(outcome)
    counters.give("waiting", ngx.var.rackserve_waiting, 1)
    ngx.var.rackserve_waiting = ""
    metrics.held(outcome)
end

-- Hold a request until an instance is in rotation again; returns its upstream, or nothing when the time is up or too
-- many are held already.
function rotation.hold(name, find)
    if hold.seconds == 0 or hold.requests == 0 then
        return nil
    end
    counters.take("waiting", name, 1)
    ngx.var.rackserve_waiting = name
    if held() > hold.requests then
        return release("full")
    end
    local ends = counters.now() + hold.seconds
    local upstream
    repeat
        ngx.sleep(STEP)
        upstream = find()
    until upstream or counters.now() > ends
    release(upstream and "served" or "expired")
    return upstream
end

-- Count a held request whose client went away.
function rotation.leave()
    if (ngx.var.rackserve_waiting or "") ~= "" then
        release("gone")
    end
end

return rotation
