-- Errors that clients get, in OpenAI's shape: the edge's own, and those of an engine, which has other shapes too.
local cjson = require "cjson.safe"

-- A larger error of an engine is passed on as it is.
local LARGEST = 262144

local answers = {}

-- Anthropic's API: its clients send the key in another header and expect another error format.
function answers.is_messages()
    return ngx.var.uri:find("^/v1/messages") ~= nil
end

local function written(message, kind, code, param)
    local told = { message = message, type = kind, code = code, param = param or cjson.null }
    return cjson.encode({ error = told, type = answers.is_messages() and "error" or nil }) .. "\n"
end

-- Answer with an error, and end the request. A client that waits for a go-ahead before it sends its body gets none.
function answers.refuse(status, kind, code, message, headers, param)
    for name, value in pairs(headers or {}) do
        ngx.header[name] = value
    end
    if ngx.var.http_expect then
        ngx.req.clear_header("Expect")
        ngx.header["Connection"] = "close"
    end
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.print(written(message, kind, code, param))
    return ngx.exit(ngx.HTTP_OK)
end

function answers.bad_request(message, param)
    return answers.refuse(400, "invalid_request_error", "invalid_request", message, nil, param)
end

function answers.too_many(what, seconds)
    local wait = math.max(1, math.ceil(seconds))
    local message = what .. "; retry in " .. wait .. " s."
    return answers.refuse(429, "rate_limit_error", "rate_limit_exceeded", message, { ["Retry-After"] = wait })
end

-- Return at most so many bytes of a text in UTF-8, without a part of a character at the end.
function answers.cut(text, most)
    if #text <= most then
        return text
    end
    local last = most
    while last > 0 and text:byte(last + 1) >= 0x80 and text:byte(last + 1) < 0xC0 do
        last = last - 1
    end
    return text:sub(1, last)
end

-- The sentence of an error in another shape: FastAPI's `detail`, a text or a list; the flat one of early releases.
local function sentence_of(told, text)
    local detail = type(told) == "table" and (told.detail or told.message) or nil
    if type(detail) == "table" then
        local found = {}
        for _, item in ipairs(detail) do
            if type(item) == "table" and type(item.msg) == "string" then
                local place = {}
                for _, part in ipairs(type(item.loc) == "table" and item.loc or {}) do
                    table.insert(place, tostring(part))
                end
                table.insert(found, (#place > 0 and table.concat(place, ".") .. ": " or "") .. item.msg)
            end
        end
        detail = table.concat(found, "; ")
    end
    if type(detail) == "string" and detail ~= "" then
        return detail
    end
    local plain = text:match("^%s*([^<{%[].-)%s*$")
    return plain and answers.cut(plain, 500) or "The engine answered " .. ngx.status .. "."
end

local function shaped(text)
    local told = cjson.decode(text)
    if type(told) == "table" and type(told.error) == "table" then
        return text
    end
    local flat = type(told) == "table" and told.object == "error" and told or {}
    local kind = type(flat.type) == "string" and flat.type
        or ngx.status < 500 and "invalid_request_error" or "server_error"
    local param = type(flat.param) == "string" and flat.param or nil
    return written(sentence_of(told, text), kind, flat.code or ngx.status, param)
end

-- Announce an engine's error, whose length will change.
function answers.announce()
    if ngx.status >= 400 and (ngx.var.upstream_status or "") ~= "" then
        ngx.ctx.error_parts, ngx.ctx.error_bytes = {}, 0
        ngx.header["Content-Length"] = nil
        ngx.header["Content-Type"] = "application/json"
    end
end

-- Take a piece of an engine's error, and pass the whole on at its end. Returns whether the answer is one.
function answers.piece()
    local parts = ngx.ctx.error_parts
    if not parts then
        return false
    end
    table.insert(parts, ngx.arg[1])
    ngx.ctx.error_bytes = ngx.ctx.error_bytes + #ngx.arg[1]
    local whole = ngx.arg[2]
    if whole then
        local text = table.concat(parts)
        ngx.arg[1] = ngx.ctx.error_passed and text or shaped(text)
    elseif ngx.ctx.error_bytes > LARGEST then
        ngx.arg[1] = table.concat(parts)
        ngx.ctx.error_parts, ngx.ctx.error_passed = {}, true
    else
        ngx.arg[1] = nil
    end
    return true
end

return answers
