-- Authentication, limits and routing of a request: the client of its key, the limits, and the instances of its model.
-- All data comes from one table that is read when nginx loads its configuration, and from the rotation.
local answers = require "answers"
local body = require "body"
local cjson = require "cjson.safe"
local counters = require "counters"
local ffi = require "ffi"
local limits = require "limits"
local metrics = require "metrics"
local rotation = require "rotation"

ffi.cdef [[ unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *digest); ]]
cjson.decode_invalid_numbers(false)

local edge = {}
local known
local counts = ngx.shared.rackserve
local digest = ffi.new("unsigned char[32]")
local refuse, bad_request = answers.refuse, answers.bad_request

-- Read the table and return it. An error here fails `nginx -t`, and a running nginx keeps its old configuration.
function edge.load(folder)
    local file = assert(io.open(folder .. "/table.json", "r"))
    known = assert(cjson.decode(file:read("*a")))
    file:close()
    body.load(known)
    rotation.load(folder .. "/upstreams.conf", known)
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
    metrics.load(known)
end

-- Begin to count in a worker.
function edge.start_worker()
    counters.start_worker(known)
    rotation.start_worker()
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
        or answers.is_messages() and ngx.var.http_x_api_key
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
    counters.give("open", name, 1)
    counters.give("sequences", name, tonumber(ngx.var.rackserve_sequences) or 1)
end

local function admit(client, name)
    counters.take("open", name, 1)
    if counters.take("sequences", name, 1) > client.concurrent then
        release(name)
        return answers.too_many("This client has " .. client.concurrent .. " requests open, the most it may have", 1)
    end
    local wait = counters.wait(client, name)
    if wait > 0 then
        release(name)
        return answers.too_many("This client exceeds its request rate", wait)
    end
    ngx.var.rackserve_open = name
end

-- Count a request for several sequences as that many open ones; one for more than the client may have, as all of them.
local function charge(client, name, sequences)
    local more = math.min(math.floor(sequences), client.concurrent) - 1
    if more < 1 then
        return
    end
    if counters.take("sequences", name, more) > client.concurrent then
        counters.give("sequences", name, more)
        return answers.too_many("This request counts as " .. more + 1 .. " of the " .. client.concurrent
            .. " sequences that this client may have open, and others are open", 1)
    end
    ngx.var.rackserve_sequences = more + 1
end

-- Stored and background responses exist on one instance only, and the next request may go to another instance.
local function refuse_state(asked)
    for _, key in ipairs({ "previous_response_id", "conversation", "background" }) do
        local text = asked:raw(key, 8)
        if text and text ~= "false" then
            return bad_request("Responses are not stored: send the whole input, without '" .. key .. "'.", key)
        end
    end
end

-- An engine with adapters crashes or returns wrong numbers on a request for prompt log-probabilities concurrent with
-- another request: issues 16668, 29955 and 51594 of vLLM. `echo` makes `logprobs` include those of the prompt.
local function refuse_prompt_logprobs(asked)
    if asked:raw("prompt_logprobs", 8)
        or asked:holds("echo") and (asked:raw("logprobs", 8) or asked:raw("top_logprobs", 8)) then
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
    local pieces = {}
    for _, name in ipairs({ "system", "instructions", "prompt" }) do
        table.insert(pieces, text_of(asked:opening(name)))
    end
    local turns = asked:opening("messages") or asked:opening("input")
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

-- Return what requests that should go to one instance have in common: a client or a prefix; nothing without affinity.
local function affinity_of(group, name, asked)
    local rule = known.affinity
    if not rule or not known.groups[group].affine then
        return nil
    end
    local shared = rule.by == "key" and name or opening_of(asked)
    return shared ~= "" and sha256(asked.model .. "\n" .. shared):sub(1, 16) or nil
end

-- Choose the upstream within a group: by what is shared, or by open requests if nothing is, or too many requests share
-- it; nothing where no instance is in rotation. Counts of a killed worker expire after an hour.
local function upstream_of(group, value)
    local upstream, affine = rotation.upstream(group)
    if not affine or not value then
        return upstream
    end
    local open = counts:incr("affine/" .. value, 1, 0, 3600)
    if not open or open > known.affinity.concurrent then
        counts:incr("affine/" .. value, -1)
        return upstream
    end
    ngx.var.rackserve_affinity = value
    return affine
end

-- Accept a request or reject it with an error.
function edge.enter()
    local client, name = identify()
    admit(client, name)
    return client, name
end

-- Refuse what no engine of the model should get.
local function check(asked, model, path)
    if path == "/v1/responses" then
        refuse_state(asked)
    end
    if model.adapters then
        refuse_prompt_logprobs(asked)
    end
    if model.task ~= "generate" then
        return limits.refuse_inputs(asked, known.limits.inputs)
    end
    limits.refuse_sequences(limits.sequences(asked), known.limits.sequences)
    limits.refuse_grammars(asked, known.limits.grammar_kib, known.limits.grammar_values)
    ngx.var.rackserve_grammar = limits.has_grammar(asked) and "1" or ""
end

-- Accept a request and choose the group of instances that serves its model at this path.
function edge.route(path)
    local client, name = edge.enter()
    local asked = body.read(name)
    local model = known.models[asked.model]
    if not model or not client.may[asked.model] then
        local message = "The model '" .. answers.cut(asked.model, 100) .. "' does not exist; this key may use: "
            .. table.concat(client.names, ", ") .. "."
        return refuse(404, "invalid_request_error", "model_not_found", message, nil, "model")
    end
    if not model.has[path] then
        local message = "The model '" .. asked.model .. "' is not served at " .. path .. "; it is served at "
            .. table.concat(model.paths, ", ") .. "."
        return refuse(400, "invalid_request_error", "model_not_supported", message, nil, "model")
    end
    check(asked, model, path)
    if model.task == "generate" then
        charge(client, name, limits.sequences(asked))
    end
    ngx.var.rackserve_model = asked.model
    local value = affinity_of(model.group, name, asked)
    asked = nil -- luacheck: ignore 311 (a held request keeps no second copy of its body)
    local upstream = upstream_of(model.group, value) or rotation.hold(name, function()
        return upstream_of(model.group, value)
    end)
    if not upstream then
        return ngx.exit(503)
    end
    ngx.var.rackserve_group = upstream
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
        local held = tonumber(ngx.var.rackserve_held)
        if held then
            counters.give("held", name, held)
        end
    end
    rotation.leave()
    local value = ngx.var.rackserve_affinity
    if value and value ~= "" then
        local open = counts:incr("affine/" .. value, -1)
        if open and open <= 0 then
            counts:delete("affine/" .. value)
        end
    end
end

return edge
