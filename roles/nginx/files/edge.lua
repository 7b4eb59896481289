-- What the edge decides for each request: whose key it is, whether it may come in, and which instances answer its model.
-- Everything it knows stands in one table that is read when nginx loads its configuration.
local cjson = require "cjson.safe"
local ffi = require "ffi"

ffi.cdef [[ unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest); ]]
cjson.decode_invalid_numbers(false)

local edge = {}
local known, generation
local counts = ngx.shared.rackserve
local digest = ffi.new("unsigned char[32]")

-- Read the table. An error here fails `nginx -t`, and nginx goes on with what it has.
function edge.load(path)
    local file = assert(io.open(path, "r"))
    known = assert(cjson.decode(file:read("*a")))
    file:close()
    generation = tostring(ngx.time()) .. "." .. ngx.worker.pid()
    for _, client in pairs(known.clients) do
        local allowed = client.models
        client.may, client.names = {}, {}
        for name in pairs(known.models) do
            client.may[name] = allowed == nil
        end
        for _, name in ipairs(allowed or {}) do
            client.may[name] = true
        end
        for name, may in pairs(client.may) do
            if may then
                table.insert(client.names, name)
            end
        end
        table.sort(client.names)
    end
end

local function open_keys(name)
    local total = "open/" .. name
    return total, total .. "/" .. generation .. "/" .. ngx.worker.id()
end

-- Give back what a worker held that was killed; this one has its place.
function edge.start_worker()
    if not ngx.worker.id() then
        return
    end
    for name in pairs(known.clients) do
        local total, mine = open_keys(name)
        local lost = counts:get(mine) or 0
        if lost > 0 then
            counts:incr(total, -lost)
            counts:delete(mine)
        end
    end
end

local function refuse(status, kind, code, message, headers, param)
    for name, value in pairs(headers or {}) do
        ngx.header[name] = value
    end
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    local told = { message = message, type = kind, code = code, param = param or cjson.null }
    ngx.say(cjson.encode({ error = told }))
    return ngx.exit(ngx.HTTP_OK)
end

local function sha256(text)
    ffi.C.SHA256(text, #text, digest)
    return (ffi.string(digest, 32):gsub(".", function(byte)
        return string.format("%02x", byte:byte())
    end))
end

local function unauthorized(message)
    return refuse(401, "invalid_request_error", "invalid_api_key", message, { ["WWW-Authenticate"] = "Bearer" })
end

-- A key is looked up by its hash, so that the time it takes tells nothing of the keys that exist.
local function identify()
    local given = (ngx.var.http_authorization or ""):match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+) *$")
    if not given then
        return unauthorized("No API key: send the header 'Authorization: Bearer KEY'.")
    end
    local hash = sha256(given)
    local key = known.keys[hash]
    if not key then
        return unauthorized("The API key is not known here.")
    end
    ngx.var.rackserve_client, ngx.var.rackserve_key = key.client, hash:sub(1, 12)
    if key.revoked then
        return unauthorized("The API key was revoked.")
    end
    if key.expires and ngx.time() >= key.expires then
        return unauthorized("The API key has expired.")
    end
    local client = known.clients[key.client]
    if client.suspended then
        return refuse(403, "permission_error", "client_suspended", "This client is suspended; ask the fleet's operator.")
    end
    return client, key.client
end

local function release(name)
    local total, mine = open_keys(name)
    counts:incr(total, -1)
    counts:incr(mine, -1)
end

local function too_many(what, seconds)
    local wait = math.max(1, math.ceil(seconds))
    local message = what .. "; come back in " .. wait .. " s."
    return refuse(429, "rate_limit_error", "rate_limit_exceeded", message, { ["Retry-After"] = wait })
end

-- Generic cell rate: `due` is when the steady rate would have let this request come. Every step is atomic among workers.
local function wait_of(client, name)
    local now, step = ngx.now(), client.seconds_per_request
    local due = assert(counts:incr("due/" .. name, step, now, step))
    local early = due - now - step * (client.burst + 1)
    if early > 0.0005 then
        counts:incr("due/" .. name, -step)
        return early
    end
    counts:expire("due/" .. name, math.max(due - now, 0.001))
    return 0
end

local function admit(client, name)
    local total, mine = open_keys(name)
    local open = assert(counts:incr(total, 1, 0))
    counts:incr(mine, 1, 0)
    if open > client.concurrent then
        release(name)
        return too_many("This client has " .. client.concurrent .. " requests open, as many as it may", 1)
    end
    local wait = wait_of(client, name)
    if wait > 0 then
        release(name)
        return too_many("This client sends more requests than it may", wait)
    end
    ngx.var.rackserve_open = name
end

local function bad_request(message, param)
    return refuse(400, "invalid_request_error", "invalid_request", message, nil, param)
end

local function asked_model()
    if ngx.req.http_version() >= 2 and not ngx.var.http_content_length then
        return refuse(411, "invalid_request_error", "length_required", "Send the header Content-Length.")
    end
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if not body then
        return bad_request("The request has no body; send a JSON object.")
    end
    local asked = cjson.decode(body)
    if type(asked) ~= "table" then
        return bad_request("The body is not a JSON object.")
    end
    if type(asked.model) ~= "string" then
        return bad_request("The body has no 'model'; name one as text.", "model")
    end
    return asked.model
end

-- Let a request in, or answer it.
function edge.enter()
    local client, name = identify()
    admit(client, name)
    return client
end

-- Let a request in and choose the group of instances that serves its model.
function edge.route()
    local client = edge.enter()
    local model = asked_model()
    if not client.may[model] then
        local message = "The model '" .. model:sub(1, 100) .. "' does not exist; this key may use: "
            .. table.concat(client.names, ", ") .. "."
        return refuse(404, "invalid_request_error", "model_not_found", message, nil, "model")
    end
    ngx.var.rackserve_model = model
    ngx.var.rackserve_group = known.models[model].group
end

-- Answer with the models that the key may use. No engine is asked.
function edge.models()
    local client = edge.enter()
    local list = {}
    for _, name in ipairs(client.names) do
        local length = known.models[name].max_model_len
        table.insert(list, { id = name, object = "model", created = 0, owned_by = "rackserve", max_model_len = length })
    end
    ngx.say(cjson.encode({ object = "list", data = list }))
end

-- Count a request as ended, whichever way it did.
function edge.leave()
    local name = ngx.var.rackserve_open
    if name and name ~= "" then
        release(name)
    end
end

return edge
