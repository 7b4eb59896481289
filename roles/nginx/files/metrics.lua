-- Prometheus counters and histograms of the requests in the access log, in a separate shared dictionary. Label values
-- come only from the edge's table, never from a request, so clients, models and servers bound the number of series.
local counters = require "counters"
local counts = ngx.shared.rackserve_metrics
local metrics = {}
local known, servers, weights, labels = nil, {}, {}, { client = {}, model = {}, upstream = {} }

-- The buckets of vLLM's own time to first token, so that the same limit applies to the edge.
local FIRST_BYTE = { "0.05", "0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "5.0", "7.5", "10.0", "30.0", "60.0", "120.0" }
local WHOLE = { "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "120.0", "300.0", "600.0" }
-- A counter that first appears with value 1 shows no increase; counters used in alerts are initialised with 0.
local TOLD_AS_ZERO = { "200", "500", "502", "503", "504" }
local MANY_PAIRS = 500
local NOBODY = "none"
-- Events of the Responses and Messages APIs before the first token, and bytes of a line that are looked at.
local SILENT_EVENTS = {
    ["ping"] = true, ["message_start"] = true,
    ["response.created"] = true, ["response.queued"] = true, ["response.in_progress"] = true,
}
local LONGEST_LINE = 64
-- In a stream, an engine's error. No text of an answer has it: its quotes are escaped.
local ERROR_IN_STREAM = 'data: {"error"'

local families = {
    { "requests_total", "counter", "Requests that ended, by what the client was told.",
        { "client", "model", "status" } },
    { "sent_bytes_total", "counter", "Bytes sent to clients.", { "client", "model" } },
    { "received_bytes_total", "counter", "Bytes received from clients.", { "client", "model" } },
    { "first_byte_seconds", "histogram", "From a request's begin to the first byte of a streamed answer's body.",
        { "client", "model" }, FIRST_BYTE },
    { "request_seconds", "histogram", "From a request's begin to its end, of those that an engine answered with 2xx.",
        { "client", "model" }, WHOLE },
    { "upstream_requests_total", "counter", "Attempts to have an instance answer, by what it said.",
        { "upstream", "status" } },
    { "upstream_first_byte_seconds", "histogram", "As first_byte_seconds, from when this instance was asked.",
        { "upstream" }, FIRST_BYTE },
    { "upstream_seconds", "histogram", "As request_seconds, from when this instance was asked.",
        { "upstream" }, WHOLE },
    { "holds_total", "counter", "Requests that were held for an instance to return to rotation, by how it ended.",
        { "model", "outcome" } },
    { "upstream_broken_answers_total", "counter",
        "Answers with 2xx that an instance broke off, or ended with an error in the stream.", { "upstream" } },
}

local OPEN = {
    { "open_requests", "open", "Requests that a client has open now." },
    { "open_sequences", "sequences", "Sequences of these requests, which the client's limit counts." },
    { "held_body_bytes", "held", "Bytes of the larger bodies of these requests." },
    { "held_requests", "waiting", "Requests that wait for an instance to return to rotation." },
}

-- Take the edge's table, as edge.load has read it.
function metrics.load(table_of_edge)
    known = table_of_edge
    local pairs_of = {}
    for name, client in pairs(known.clients) do
        labels.client[name] = true
        for _, model in ipairs(client.names) do
            labels.model[model] = true
            table.insert(pairs_of, { name, model })
        end
    end
    for label, server in pairs(known.servers) do
        labels.upstream[label], servers[server.address] = true, label
    end
    metrics.zeros = #pairs_of <= MANY_PAIRS and pairs_of or {}
end

-- Take the rotation: `weight` of each server by its label.
function metrics.rotate(rotation)
    weights = rotation
end

-- A full dictionary never evicts a series: a sample without space is counted as lost.
local function add(key, value)
    for _ = 1, 2 do
        local sum, reason = counts:incr(key, value)
        if sum then
            return
        end
        local added
        if reason == "not found" then
            added, reason = counts:safe_add(key, value)
        end
        if added then
            return
        end
        if reason ~= "exists" then
            break
        end
    end
    counts:incr("lost", 1, 0)
end

-- Buckets are stored non-cumulative; /metrics adds them up.
local function observe(family, bounds, series, seconds)
    local place = "+Inf"
    for _, bound in ipairs(bounds) do
        if seconds <= tonumber(bound) then
            place = bound
            break
        end
    end
    add(family .. "\n" .. series .. "\n" .. place, 1)
    add(family .. "\n" .. series .. "\nsum", seconds)
end

local function or_nobody(text)
    return text and text ~= "" and text ~= "-" and text or NOBODY
end

local function split(text)
    local values = {}
    for value in (text .. "\n"):gmatch("([^\n]*)\n") do
        table.insert(values, value)
    end
    return values
end

-- Split the values that nginx joins for several upstream servers: "a, b : c".
local function parts(text)
    local found = {}
    for part in (text or ""):gmatch("[^%s,]+") do
        if part ~= ":" then
            table.insert(found, part)
        end
    end
    return found
end

local function is_stream()
    return (ngx.var.sent_http_content_type or ""):find("^text/event%-stream") ~= nil
end

-- Whether a piece of an event stream has data of an answer. A comment keeps a connection open, and some events say
-- only that the request was taken: neither is a token.
local function has_data(context, piece)
    local text = ((context.line or "") .. piece):gsub("\r", "")
    local begin = 1
    while true do
        local stop = text:find("\n", begin, true)
        if not stop then
            break
        end
        local line = text:sub(begin, stop - 1)
        begin = stop + 1
        if line == "" then
            context.silent = nil
        elseif line:find("^event:") then
            context.silent = SILENT_EVENTS[line:match("^event: ?(.*)$")]
        elseif line:find("^data:") and not context.silent then
            return true
        end
    end
    context.line = text:sub(begin, begin + LONGEST_LINE)
    return not context.silent and context.line:find("^data:") ~= nil
end

-- Record the time of the first byte of an engine's response and how it ends; called for every chunk.
function metrics.piece()
    local context = ngx.ctx
    context.ended = context.ended or ngx.arg[2]
    if #(ngx.arg[1] or "") == 0 then
        return
    end
    if is_stream() and ngx.arg[1]:find(ERROR_IN_STREAM, 1, true) then
        context.error_in_stream = true
    end
    if context.first_byte then
        return
    end
    if not is_stream() or has_data(context, ngx.arg[1]) then
        context.first_byte = math.max(0, ngx.now() - ngx.req.start_time())
        ngx.var.rackserve_first_byte = string.format("%.3f", context.first_byte)
    end
end

-- The status that a client was told. An engine's 500 to a request with a grammar or schema of its own is another: a
-- client can cause it, and does not use up the error budget of all.
local function status_of(status, said)
    return status == "500" and said == "500" and ngx.var.rackserve_grammar == "1" and "500_grammar" or or_nobody(status)
end

-- Whether an instance broke off an answer, which nginx passes on without its end. Where the client hung up, nginx has
-- not completed the request.
local function is_broken()
    local context = ngx.ctx
    if context.error_in_stream then
        return ngx.var.rackserve_grammar ~= "1"
    end
    return not context.ended and ngx.var.request_completion == "OK"
end

local function count()
    local var = ngx.var
    if var.requested_path == "/healthz" then
        return
    end
    local pair = or_nobody(var.rackserve_client) .. "\n" .. or_nobody(var.rackserve_model)
    local asked, said, took = parts(var.upstream_addr), parts(var.upstream_status), parts(var.upstream_response_time)
    add("requests_total\n" .. pair .. "\n" .. status_of(var.status, said[#said]), 1)
    add("sent_bytes_total\n" .. pair, tonumber(var.bytes_sent) or 0)
    add("received_bytes_total\n" .. pair, tonumber(var.request_length) or 0)
    for number, status in ipairs(said) do
        local server = servers[asked[number]]
        if server then
            add("upstream_requests_total\n" .. server .. "\n" .. status_of(status, status), 1)
        end
    end
    local upstream, whole = servers[asked[#asked] or ""], tonumber(var.request_time)
    if not upstream or not (said[#said] or ""):match("^2") then
        return
    end
    if is_broken() then
        add("upstream_broken_answers_total\n" .. upstream, 1)
    end
    local alone = tonumber(took[#took]) or whole
    observe("request_seconds", WHOLE, pair, whole)
    observe("upstream_seconds", WHOLE, upstream, alone)
    local first = ngx.ctx.first_byte
    if first and is_stream() then
        observe("first_byte_seconds", FIRST_BYTE, pair, first)
        observe("upstream_first_byte_seconds", FIRST_BYTE, upstream, math.max(0, first - (whole - alone)))
    end
end

-- Count a finished request.
function metrics.count()
    if not pcall(count) then
        counts:incr("lost", 1, 0)
    end
end

-- Count a request that was held.
function metrics.held(outcome)
    add("holds_total\n" .. or_nobody(ngx.var.rackserve_model) .. "\n" .. outcome, 1)
end

local function escaped(text)
    return (text:gsub("\\", "\\\\"):gsub("\n", "\\n"):gsub('"', '\\"'))
end

local function written(names, values, more)
    local found = {}
    for number, name in ipairs(names) do
        table.insert(found, name .. '="' .. escaped(values[number]) .. '"')
    end
    table.insert(found, more)
    return "{" .. table.concat(found, ",") .. "}"
end

-- Whether the client, model or server of a series still exists.
local function still_there(names, values)
    for number, name in ipairs(names) do
        if labels[name] and values[number] ~= NOBODY and not labels[name][values[number]] then
            return false
        end
    end
    return true
end

-- All series by family; series of removed clients, models and servers are deleted.
local function gathered()
    local found, names_of = {}, {}
    for _, family in ipairs(families) do
        found[family[1]], names_of[family[1]] = {}, family[4]
    end
    for _, pair in ipairs(metrics.zeros) do
        for _, status in ipairs(TOLD_AS_ZERO) do
            found.requests_total[pair[1] .. "\n" .. pair[2] .. "\n" .. status] = 0
        end
    end
    for _, label in pairs(servers) do
        found.upstream_broken_answers_total[label] = 0
    end
    for _, key in ipairs(counts:get_keys(0)) do
        local family, rest = key:match("^([^\n]+)\n(.*)$")
        if family then
            if still_there(names_of[family], split(rest)) then
                found[family][rest] = counts:get(key)
            else
                counts:delete(key)
            end
        end
    end
    return found
end

local function tell_histogram(say, name, names, bounds, series)
    local of = {}
    for rest, value in pairs(series) do
        local labels_of, place = rest:match("^(.*)\n([^\n]*)$")
        of[labels_of] = of[labels_of] or {}
        of[labels_of][place] = value
    end
    for text, places in pairs(of) do
        local values, total = split(text), 0
        for _, bound in ipairs(bounds) do
            total = total + (places[bound] or 0)
            say(name .. "_bucket" .. written(names, values, 'le="' .. bound .. '"') .. " " .. total)
        end
        total = total + (places["+Inf"] or 0)
        say(name .. "_bucket" .. written(names, values, 'le="+Inf"') .. " " .. total)
        say(name .. "_sum" .. written(names, values) .. " " .. string.format("%.3f", places.sum or 0))
        say(name .. "_count" .. written(names, values) .. " " .. total)
    end
end

-- Respond with all series in Prometheus's text format.
function metrics.tell()
    local lines, found = {}, gathered()
    local function say(line)
        table.insert(lines, line)
    end
    local function head(name, kind, help)
        say("# HELP " .. name .. " " .. help)
        say("# TYPE " .. name .. " " .. kind)
    end
    for _, family in ipairs(families) do
        local name, names = "rackserve_edge_" .. family[1], family[4]
        head(name, family[2], family[3])
        if family[2] == "histogram" then
            tell_histogram(say, name, names, family[5], found[family[1]])
        else
            for rest, value in pairs(found[family[1]]) do
                say(name .. written(names, split(rest)) .. " " .. string.format("%.0f", value))
            end
        end
    end
    for _, kind in ipairs(OPEN) do
        head("rackserve_edge_" .. kind[1], "gauge", kind[3])
        for name in pairs(known.clients) do
            say("rackserve_edge_" .. kind[1] .. written({ "client" }, { name }) .. " " .. counters.total(kind[2], name))
        end
    end
    head("rackserve_edge_drained", "gauge", "1 for an instance that an operator or a rollout took out of rotation.")
    for label, server in pairs(weights) do
        say("rackserve_edge_drained" .. written({ "upstream" }, { label }) .. (server.weight == 0 and " 1" or " 0"))
    end
    head("rackserve_edge_weight", "gauge", "Percentage of a full instance's requests that an instance gets.")
    for label, server in pairs(weights) do
        say("rackserve_edge_weight" .. written({ "upstream" }, { label }) .. " " .. server.weight)
    end
    head("rackserve_edge_dropped_samples_total", "counter", "Samples dropped because the shared memory was full.")
    say("rackserve_edge_dropped_samples_total " .. (counts:get("lost") or 0))
    ngx.header["Content-Type"] = "text/plain; version=0.0.4"
    ngx.print(table.concat(lines, "\n"), "\n")
end

return metrics
