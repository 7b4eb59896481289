-- What one request may ask of an engine: sequences, inputs, and grammars. A limit that is not understood in a body is
-- left to the engine, which refuses it.
local answers = require "answers"

-- Members with texts of a grammar or schema that an engine compiles before it answers.
local GRAMMARS = {
    "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "response_format",
    "output_format", "output_config", "text",
}
local INPUTS = { "input", "documents", "queries", "query", "items", "text_1", "text_2", "data_1", "data_2" }
-- Tools are schemas too, which are compiled only where a tool must be called; an agent has many.
local TOOLS_TIMES = 4

local limits = {}

-- Return how many sequences a request generates: `n`, or the candidates of which it returns `n`, for each prompt.
function limits.sequences(asked)
    local each, prompts = math.max(1, asked:number("n") or 1, asked:number("best_of") or 1), 0
    for _, name in ipairs({ "prompt", "prompt_embeds" }) do
        local member = asked:member(name)
        prompts = prompts + (member and member.items - member.numbers or 0) -- a list of numbers is one prompt
    end
    return each * math.max(1, prompts)
end

local function shown(number)
    return number < 1e15 and string.format("%.0f", number) or tostring(number)
end

function limits.refuse_sequences(sequences, most)
    if sequences > most then
        return answers.bad_request("The request asks for " .. shown(sequences) .. " sequences ('n' or 'best_of' times "
            .. "the prompts), and one request may have " .. most .. "; send several requests.", "n")
    end
end

-- Refuse lists of more texts to embed, score or rank than one request may have.
function limits.refuse_inputs(asked, most)
    for _, name in ipairs(INPUTS) do
        local member = asked:member(name)
        if member and member.things > most then
            return answers.bad_request("'" .. name .. "' has " .. member.things .. " items, and one request may have "
                .. most .. "; send several requests.", name)
        end
    end
end

-- Refuse grammars and schemas that an engine would compile for minutes.
function limits.refuse_grammars(asked, most_kib, most_values)
    local function check(name, most)
        local member = asked:member(name)
        local size = member and member.to - member.from + 1 or 0
        if size > most * 1024 then
            return answers.bad_request("'" .. name .. "' has " .. size .. " bytes, and a request may have "
                .. most * 1024 .. " there; shorten the grammar or schema.", name)
        elseif size > 0 and member.longest > most_values then
            return answers.bad_request("'" .. name .. "' has a list of " .. member.longest .. " values, and the most "
                .. "is " .. most_values .. "; shorten the list.", name)
        end
    end
    for _, name in ipairs(GRAMMARS) do
        check(name, most_kib)
    end
    check("tools", TOOLS_TIMES * most_kib)
end

-- Whether an engine compiles a text of the request, so that a 500 may be the client's own.
function limits.has_grammar(asked)
    for _, name in ipairs(GRAMMARS) do
        local text = asked:raw(name) or ""
        if name:find("^guided_") and text ~= "" or text:find("schema", 1, true) or text:find("structural_tag", 1, true)
            or name == "structured_outputs" and text ~= "" then
            return true
        end
    end
    local choice = asked:raw("tool_choice", 64) or '"auto"'
    return asked:raw("tools", 8) ~= nil and not choice:find('"auto"', 1, true) and not choice:find('"none"', 1, true)
end

return limits
