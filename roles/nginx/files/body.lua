-- Reads the body of a request into memory, and what the edge needs of it, without building the whole.
local answers = require "answers"
local cjson = require "cjson.safe"
local counters = require "counters"
local scan = require "scan"

local BODY_SECONDS, BODY_BYTES_PER_SECOND = 30, 32768
-- Smaller bodies are not counted.
local SMALL = 65536
-- How long a body of unknown length waits for others of its client to be read.
local WAIT_SECONDS, WAIT_STEP = 10, 0.05
-- Bytes of a member that is decoded; only the beginning of a longer one is looked at.
local DECODED = 65536

local WANTED = {}
for name in ([[
    model n best_of prompt prompt_embeds echo logprobs top_logprobs prompt_logprobs tool_choice
    input documents queries query items text_1 text_2 data_1 data_2
    structured_outputs guided_json guided_regex guided_choice guided_grammar response_format text output_format
    output_config tools previous_response_id conversation background system instructions messages
]]):gmatch("%S+") do
    WANTED[name] = true
end

local body, Asked = {}, {}
Asked.__index = Asked

-- Return the JSON text of a member, at most so many bytes of it; nothing where there is none, or null.
function Asked:raw(name, most)
    local member = self.members[name]
    if not member then
        return nil
    end
    local text = self.text:sub(member.from, math.min(member.to, most and member.from + most - 1 or member.to))
    return text ~= "null" and text or nil
end

-- Return a member's place and counts, see scan.members; nothing where there is none.
function Asked:member(name)
    return self.members[name]
end

-- Return a member that is a string, else nothing.
function Asked:string(name)
    local inside = (self:raw(name) or ""):match('^"(.*)"$')
    return inside and scan.text_of(inside)
end

-- Return a member that is a number, or a text of one, as engines take both; else nothing.
function Asked:number(name)
    local text = self:string(name)
    return tonumber(text and text:gsub("_", "") or self:raw(name) or "")
end

-- Whether a member is there and not false, null or 0.
function Asked:holds(name)
    local text = self:raw(name, 8)
    return text ~= nil and text ~= "false" and text ~= "0"
end

local function decoded(text)
    local list = #text <= DECODED and cjson.decode("[" .. text .. "]")
    return list and list[1]
end

-- Return a member, or the first elements of its list, decoded; a part that is too long is the text of its beginning.
function Asked:opening(name)
    local member, text = self.members[name], self:raw(name, DECODED + 1)
    if not text then
        return nil
    end
    local whole = decoded(text)
    if whole ~= nil or #member.begins == 0 then
        return whole ~= nil and whole or text
    end
    local parts = {}
    for number, from in ipairs(member.begins) do
        local to = (member.begins[number + 1] or member.to) - 1
        local part = self.text:sub(from, math.min(to, from + DECODED)):gsub("[%s,]+$", "")
        local value = decoded(part)
        table.insert(parts, value ~= nil and value or part)
    end
    return parts
end

local function most_bytes()
    return body.limits.body_mib * 1048576
end

-- Count the bytes of a body for its client; returns whether there is room for them.
local function hold(name, amount)
    if counters.take("held", name, amount) > body.limits.bodies_mib * 1048576 then
        counters.give("held", name, amount)
        return false
    end
    ngx.var.rackserve_held = amount
    return true
end

local function refuse_bodies()
    return answers.too_many("The open requests of this client have bodies of " .. body.limits.bodies_mib
        .. " MiB together, the most they may have", 1)
end

-- Read a body of a known length. The timeout covers the whole body; nginx's own timeout restarts with every packet, and
-- closes the connection without a response.
local function receive(length)
    local socket = ngx.req.socket()
    if not socket then -- the client is gone before it got its go-ahead
        return ngx.exit(499)
    end
    local deadline = counters.now() + BODY_SECONDS + length / BODY_BYTES_PER_SECOND
    ngx.req.init_body(length)
    while length > 0 do
        socket:settimeout(math.max(1, (deadline - counters.now()) * 1000))
        local piece, failure = socket:receiveany(math.min(length, 65536))
        if failure == "timeout" or counters.now() > deadline then
            ngx.header["Connection"] = "close"
            return answers.refuse(408, "invalid_request_error", "request_timeout", "The body did not arrive in time.")
        end
        if not piece then
            return ngx.exit(499)
        end
        ngx.req.append_body(piece)
        length = length - #piece
    end
    ngx.req.finish_body()
end

-- Read a body of unknown length. nginx keeps its frames with it, a hundred bytes a frame, so few are read at once.
local function receive_chunks(name)
    local deadline = counters.now() + WAIT_SECONDS
    while not hold(name, most_bytes()) do
        if counters.now() > deadline then
            return refuse_bodies()
        end
        ngx.sleep(WAIT_STEP)
    end
    ngx.req.read_body()
    counters.give("held", name, most_bytes())
    ngx.var.rackserve_held = ""
    local text = ngx.req.get_body_data()
    if text and #text > SMALL and not hold(name, #text) then
        return refuse_bodies()
    end
    if not text and ngx.req.get_body_file() then
        return answers.refuse(413, "invalid_request_error", 413,
            "The chunks of the body are too small for its size: send larger ones, or the header Content-Length.")
    end
end

local function pause()
    ngx.sleep(0.001)
end

-- Take the edge's limits.
function body.load(known)
    body.limits = known.limits
end

-- Read the body of a client's request; returns what it asks.
function body.read(name)
    local length = tonumber(ngx.var.http_content_length)
    if ngx.req.http_version() >= 2 and not length then
        return answers.refuse(411, "invalid_request_error", "length_required", "Send the header Content-Length.")
    end
    if length and length > SMALL and not hold(name, length) then
        return refuse_bodies()
    end
    if not length then
        receive_chunks(name)
    elseif length > 0 and ngx.req.http_version() < 2 then
        receive(length)
    else
        ngx.req.read_body()
    end
    local text = ngx.req.get_body_data()
    if not text then
        return answers.bad_request("The request has no body; send a JSON object.")
    end
    local members, reason = scan.members(text, WANTED, pause)
    if not members then
        return answers.bad_request(reason)
    end
    local asked = setmetatable({ text = text, members = members }, Asked)
    asked.model = asked:string("model")
    if not asked.model then
        return answers.bad_request("The body has no 'model'; set it to a string.", "model")
    end
    return asked
end

return body
