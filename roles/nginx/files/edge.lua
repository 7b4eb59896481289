-- Authentication, limits and routing of a request: the client of its key, the limits, and the instances of its model.
-- All data comes from one table that is read when nginx loads its configuration.
local cjson = require "cjson.safe"
local ffi = require "ffi"

ffi.cdef [[ unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest); ]]
cjson.decode_invalid_numbers(false)

local BODY_SECONDS, BODY_BYTES_PER_SECOND = 30, 32768

local edge = {}
local known, generation
local counts = ngx.shared.rackserve
local digest = ffi.new("unsigned char[32]")

-- Read the table and return it. An error here fails `nginx -t`, and a running nginx keeps its old configuration.
function edge.load(path)
    local file = assert(io.open(path, "r"))
    known = assert(cjson.decode(file:read("*a")))
    file:close()
    generation = tostring(ngx.time()) .. "." .. ngx.worker.pid()
    for _, model in pairs(known.models) do
        model.has = {}
        for _, served in ipairs(model.paths) do
            model.has[served] = true
        end
    end
    for _, client in pairs(known.clients) do
        for _, subject in ipairs(client.certificates or {}) do
            client.certificates[subject] = true
        end
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
    return known
end

local function open_keys(name)
    local total = "open/" .. name
    return total, total .. "/" .. generation .. "/" .. ngx.worker.id()
end

-- Release the open requests of a killed worker whose ID this worker has now.
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

-- Anthropic's API: its clients send the key in another header and expect another error format.
local function is_messages()
    return ngx.var.uri:find("^/v1/messages") ~= nil
end

local function refuse(status, kind, code, message, headers, param)
    for name, value in pairs(headers or {}) do
        ngx.header[name] = value
    end
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    local told = { message = message, type = kind, code = code, param = param or cjson.null }
    ngx.say(cjson.encode({ error = told, type = is_messages() and "error" or nil }))
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

-- A key is looked up by its hash, so the time of a lookup reveals nothing about existing keys.
local function identify()
    local given = (ngx.var.http_authorization or ""):match("^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+) *$")
        or is_messages() and ngx.var.http_x_api_key
    if not given then
        return unauthorized("No API key: send the header 'Authorization: Bearer KEY'.")
    end
    local hash = sha256(given)
    local key = known.keys[hash]
    if not key then
        return unauthorized("Unknown API key.")
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
        return refuse(403, "permission_error", "client_suspended",
            "This client is suspended; ask the fleet's operator.")
    end
    local shown = ngx.var.ssl_client_verify == "SUCCESS" and ngx.var.ssl_client_s_dn or ""
    if client.certificates and not client.certificates[shown] then
        local message = "This API key requires a certificate of its client."
        return refuse(403, "permission_error", "certificate_required", message)
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
    local message = what .. "; retry in " .. wait .. " s."
    return refuse(429, "rate_limit_error", "rate_limit_exceeded", message, { ["Retry-After"] = wait })
end

-- Generic cell rate algorithm: `due` is the request's theoretical arrival time. Every step is atomic across workers.
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
        return too_many("This client has " .. client.concurrent .. " requests open, the most it may have", 1)
    end
    local wait = wait_of(client, name)
    if wait > 0 then
        release(name)
        return too_many("This client exceeds its request rate", wait)
    end
    ngx.var.rackserve_open = name
end

local function bad_request(message, param)
    return refuse(400, "invalid_request_error", "invalid_request", message, nil, param)
end

-- Read a body of a known length into memory. The timeout covers the whole body; nginx's own timeout restarts with every
-- packet, and closes the connection without a response.
local function receive(length)
    local socket = assert(ngx.req.socket())
    local deadline = ngx.now() + BODY_SECONDS + length / BODY_BYTES_PER_SECOND
    ngx.req.init_body(length)
    while length > 0 do
        socket:settimeout(math.max(1, (deadline - ngx.now()) * 1000))
        local piece, failure = socket:receiveany(math.min(length, 65536))
        if failure == "timeout" or ngx.now() > deadline then
            ngx.header["Connection"] = "close"
            return refuse(408, "invalid_request_error", "request_timeout", "The body did not arrive in time.")
        end
        if not piece then
            return ngx.exit(499)
        end
        ngx.req.append_body(piece)
        length = length - #piece
    end
    ngx.req.finish_body()
end

local function asked_body()
    local length = tonumber(ngx.var.http_content_length)
    if ngx.req.http_version() >= 2 and not length then
        return refuse(411, "invalid_request_error", "length_required", "Send the header Content-Length.")
    end
    if length and length > 0 and ngx.req.http_version() < 2 then
        receive(length)
    else
        ngx.req.read_body()
    end
    local body = ngx.req.get_body_data()
    if not body then
        return bad_request("The request has no body; send a JSON object.")
    end
    local asked = cjson.decode(body)
    if type(asked) ~= "table" then
        return bad_request("The body is not a JSON object.")
    end
    if type(asked.model) ~= "string" then
        return bad_request("The body has no 'model'; set it to a string.", "model")
    end
    return asked
end

-- Stored and background responses exist on one instance only, and the next request may go to another instance.
local function refuse_state(asked)
    for _, key in ipairs({ "previous_response_id", "conversation", "background" }) do
        if asked[key] and asked[key] ~= cjson.null then
            return bad_request("Responses are not stored: send the whole input, without '" .. key .. "'.", key)
        end
    end
end

local function has(asked, key)
    return asked[key] ~= nil and asked[key] ~= cjson.null
end

-- An engine with adapters crashes or returns wrong numbers on a request for prompt log-probabilities concurrent with
-- another request: issues 16668, 29955 and 51594 of vLLM. `echo` makes `logprobs` include those of the prompt.
local function refuse_prompt_logprobs(asked)
    if has(asked, "prompt_logprobs") or asked.echo and (has(asked, "logprobs") or has(asked, "top_logprobs")) then
        local message = "This model's instances have adapters and support no log-probabilities of a prompt: send no "
            .. "'prompt_logprobs', and no 'echo' with 'logprobs'."
        return bad_request(message, "prompt_logprobs")
    end
end

local function text_of(content)
    if type(content) ~= "table" then
        return type(content) == "string" and content or ""
    end
    local parts = {}
    for index, part in ipairs(content) do
        local text = type(part) == "table" and part.text or part
        if index > known.affinity.prefix then
            break
        elseif type(text) == "string" or type(text) == "number" then
            table.insert(parts, text)
        end
    end
    return table.concat(parts, " ")
end

-- The prefix of a prompt: the system prompt and the user's first message. Later turns of a conversation do not change
-- it.
local function opening_of(asked)
    local pieces = { text_of(asked.system), text_of(asked.instructions), text_of(asked.prompt) }
    local turns = asked.messages or asked.input
    for _, turn in ipairs(type(turns) == "table" and turns or { { content = turns } }) do
        if type(turn) == "table" then
            table.insert(pieces, text_of(turn.content))
            if turn.role == "user" then
                break
            end
        end
    end
    return table.concat(pieces):sub(1, known.affinity.prefix)
end

-- Choose the upstream within a group: by key or prefix, or by open requests if there is neither or too many requests
-- share one. Counts of a killed worker expire after an hour.
local function upstream_of(group, name, asked)
    local rule = known.affinity
    if not rule or not rule.groups[group] then
        return group
    end
    local shared = rule.by == "key" and name or opening_of(asked)
    if shared == "" then
        return group
    end
    local value = sha256(asked.model .. "\n" .. shared):sub(1, 16)
    local open = counts:incr("affine/" .. value, 1, 0, 3600)
    if not open or open > rule.concurrent then
        counts:incr("affine/" .. value, -1)
        return group
    end
    ngx.var.rackserve_affinity = value
    return group .. "_affine"
end

-- Accept a request or reject it with an error.
function edge.enter()
    local client, name = identify()
    admit(client, name)
    return client, name
end

-- Accept a request and choose the group of instances that serves its model at this path.
function edge.route(path)
    local client, name = edge.enter()
    local asked = asked_body()
    local model = asked.model
    if not client.may[model] then
        local message = "The model '" .. model:sub(1, 100) .. "' does not exist; this key may use: "
            .. table.concat(client.names, ", ") .. "."
        return refuse(404, "invalid_request_error", "model_not_found", message, nil, "model")
    end
    if not known.models[model].has[path] then
        local message = "The model '" .. model .. "' is not served at " .. path .. "; it is served at "
            .. table.concat(known.models[model].paths, ", ") .. "."
        return refuse(400, "invalid_request_error", "model_not_supported", message, nil, "model")
    end
    if path == "/v1/responses" then
        refuse_state(asked)
    end
    if known.models[model].adapters then
        refuse_prompt_logprobs(asked)
    end
    ngx.var.rackserve_model = model
    ngx.var.rackserve_group = upstream_of(known.models[model].group, name, asked)
end

-- Respond with the models that the key may use, without a request to an engine.
function edge.models()
    local client = edge.enter()
    local list = {}
    for _, name in ipairs(client.names) do
        local length = known.models[name].max_model_len
        table.insert(list, { id = name, object = "model", created = 0, owned_by = "rackserve", max_model_len = length })
    end
    ngx.say(cjson.encode({ object = "list", data = list }))
end

-- Count a request as finished, whatever its outcome.
function edge.leave()
    local name = ngx.var.rackserve_open
    if name and name ~= "" then
        release(name)
    end
    local value = ngx.var.rackserve_affinity
    if value and value ~= "" then
        local open = counts:incr("affine/" .. value, -1)
        if open and open <= 0 then
            counts:delete("affine/" .. value)
        end
    end
end

return edge
