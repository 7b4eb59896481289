-- Reads a JSON text without building it: where the members of its object are, and how many values they have. It pauses
-- between two stretches, so that another request of the worker waits for one stretch, not for the whole text.
-- One loop takes one byte at a time by a table of states, which LuaJIT compiles.
local cjson = require "cjson.safe"
local ffi = require "ffi"

-- Python's parser, which engines use, takes about 1000 levels less those of its callers, and integers of 4300 digits.
local DEEPEST, MOST_DIGITS = 512, 4300
-- Bytes between two pauses, elements of a list whose places are kept, and bytes of the longest name of a member that
-- is read, where an escaped character has six.
local STRETCH, KEPT, LONGEST_NAME = 131072, 8, 200
local NOT_JSON, NOT_UTF8 = "The body is not a JSON object.", "The body is not UTF-8."

-- States: what may come next.
local VALUE, LIST, OBJECT, NAME, COLON, AFTER, STRING, ESCAPE, HEX = 0, 1, 2, 3, 4, 5, 6, 7, 8 -- hex digits: 8 to 11
local ONE_MORE, TWO_MORE, THREE_MORE, AFTER_E0, AFTER_ED, AFTER_F0, AFTER_F4 = 12, 13, 14, 15, 16, 17, 18
local SIGN, ZERO, INTEGER, POINT, FRACTION, POWER, POWER_SIGN, POWER_DIGITS = 19, 20, 21, 22, 23, 24, 25, 26
local WORDS = { { 27, "true" }, { 31, "false" }, { 36, "null" } }
-- Above the states: what is done at a byte. A value that begins leads to a state, hence BEGIN + state.
local BEGIN, WRONG, OPEN, CLOSE, NEXT, NAME_BEGINS, STRING_ENDS, WORD_ENDS, NUMBER_ENDS =
    64, 128, 129, 130, 131, 132, 133, 134, 135

local steps = ffi.new("uint8_t[?]", 64 * 256, WRONG)

local function lead(state, from, to, step)
    for byte = from, to do
        steps[state * 256 + byte] = step
    end
end

local function lead_any(state, bytes, step)
    for number = 1, #bytes do
        lead(state, bytes:byte(number), bytes:byte(number), step)
    end
end

ffi.fill(steps, 64 * 256, WRONG)
for _, state in ipairs({ VALUE, LIST, OBJECT, NAME, COLON, AFTER }) do
    lead_any(state, " \t\r\n", state)
end
for _, state in ipairs({ VALUE, LIST }) do
    lead_any(state, "[{", OPEN)
    lead_any(state, '"', BEGIN + STRING)
    lead_any(state, "-", BEGIN + SIGN)
    lead_any(state, "0", BEGIN + ZERO)
    lead_any(state, "123456789", BEGIN + INTEGER)
end
for _, word in ipairs(WORDS) do
    local state, letters = word[1], word[2]
    lead_any(VALUE, letters:sub(1, 1), BEGIN + state)
    lead_any(LIST, letters:sub(1, 1), BEGIN + state)
    for number = 2, #letters do
        local last = number == #letters
        lead_any(state + number - 2, letters:sub(number, number), last and WORD_ENDS or state + number - 1)
    end
end
lead_any(LIST, "]", CLOSE)
lead_any(OBJECT, "}", CLOSE)
lead_any(AFTER, "]}", CLOSE)
lead_any(OBJECT, '"', NAME_BEGINS)
lead_any(NAME, '"', NAME_BEGINS)
lead_any(COLON, ":", VALUE)
lead_any(AFTER, ",", NEXT)
lead(STRING, 0x20, 0x7F, STRING)
lead_any(STRING, '"', STRING_ENDS)
lead_any(STRING, "\\", ESCAPE)
lead_any(ESCAPE, '"\\/bfnrt', STRING)
lead_any(ESCAPE, "u", HEX)
for number = 0, 3 do
    lead_any(HEX + number, "0123456789abcdefABCDEF", number == 3 and STRING or HEX + number + 1)
end
-- RFC 3629.
lead(STRING, 0xC2, 0xDF, ONE_MORE)
lead(STRING, 0xE1, 0xEF, TWO_MORE)
lead(STRING, 0xF1, 0xF3, THREE_MORE)
lead(STRING, 0xE0, 0xE0, AFTER_E0)
lead(STRING, 0xED, 0xED, AFTER_ED)
lead(STRING, 0xF0, 0xF0, AFTER_F0)
lead(STRING, 0xF4, 0xF4, AFTER_F4)
lead(ONE_MORE, 0x80, 0xBF, STRING)
lead(TWO_MORE, 0x80, 0xBF, ONE_MORE)
lead(THREE_MORE, 0x80, 0xBF, TWO_MORE)
lead(AFTER_E0, 0xA0, 0xBF, ONE_MORE)
lead(AFTER_ED, 0x80, 0x9F, ONE_MORE)
lead(AFTER_F0, 0x90, 0xBF, TWO_MORE)
lead(AFTER_F4, 0x80, 0x8F, TWO_MORE)
for _, state in ipairs({ ZERO, INTEGER, FRACTION, POWER_DIGITS }) do
    lead_any(state, " \t\r\n,]}", NUMBER_ENDS)
end
lead_any(SIGN, "0", ZERO)
lead_any(SIGN, "123456789", INTEGER)
for _, state in ipairs({ ZERO, INTEGER }) do
    lead_any(state, ".", POINT)
end
for _, state in ipairs({ ZERO, INTEGER, FRACTION }) do
    lead_any(state, "eE", POWER)
end
lead_any(POWER, "+-", POWER_SIGN)
for state, after in pairs({
    [INTEGER] = INTEGER, [POINT] = FRACTION, [FRACTION] = FRACTION,
    [POWER] = POWER_DIGITS, [POWER_SIGN] = POWER_DIGITS, [POWER_DIGITS] = POWER_DIGITS,
}) do
    lead_any(state, "0123456789", after)
end

local scan = {}

-- Return the text of a string without its quotes. Half of a surrogate pair becomes a replacement character.
function scan.text_of(raw)
    if not raw:find("\\", 1, true) then
        return raw
    end
    local whole = cjson.decode('["' .. raw .. '"]')
        or cjson.decode('["' .. raw:gsub("\\u[dD][89a-fA-F]%x%x", "\\ufffd") .. '"]')
    return whole and whole[1] or raw
end

local function reason_of(state, byte)
    return (state == STRING and byte >= 0x80 or state >= ONE_MORE and state <= AFTER_F4) and NOT_UTF8 or NOT_JSON
end

-- Read a text, a JSON object, to its end. `wanted` has the names of members to tell of; `pause` is called between two
-- stretches. The last of two members of one name counts, as for Python.
-- Returns the members by name, or nothing and a reason. A member has `from` and `to`, its first and last byte; `items`
-- and `numbers`, how many elements its list has and how many of them are numbers; `longest` and `things`, the most
-- elements of any list or object in it, and the most that are no numbers; `begins`, where its first elements begin.
function scan.members(text, wanted, pause)
    local bytes, size = ffi.cast("const uint8_t *", text), #text
    local ends, counts = ffi.new("uint8_t[?]", DEEPEST + 1), ffi.new("int32_t[?]", DEEPEST + 1)
    local numbers = ffi.new("int32_t[?]", DEEPEST + 1)
    local found, at, depth, state, begin, in_name = {}, 0, 0, VALUE, 0, false
    local name, member
    while at < size do
        local stop = math.min(at + STRETCH, size)
        while at < stop do
            local byte = bytes[at]
            local step = steps[state * 256 + byte]
            if step < BEGIN then
                state = step
                at = at + 1
            elseif step == WRONG or depth == 0 and step ~= OPEN then
                return nil, reason_of(state, byte)
            else
                local ended = false
                if step == NUMBER_ENDS then
                    if state == INTEGER and at - begin > MOST_DIGITS then
                        return nil, "The body has an integer of more than " .. MOST_DIGITS .. " digits."
                    end
                    ended = true
                    at = at - 1 -- the byte after it is of another value
                elseif step == NEXT then
                    state = ends[depth] == 125 and NAME or VALUE
                elseif step == NAME_BEGINS then
                    state, begin, in_name = STRING, at, true
                elseif step == STRING_ENDS and in_name then
                    state, in_name = COLON, false
                    if depth == 1 then
                        name = at - begin <= LONGEST_NAME and scan.text_of(text:sub(begin + 2, at)) or ""
                    end
                elseif step == CLOSE then
                    if ends[depth] ~= byte then
                        return nil, NOT_JSON
                    end
                    if member then
                        member.longest = math.max(member.longest, counts[depth])
                        member.things = math.max(member.things, counts[depth] - numbers[depth])
                        if depth == 2 then
                            member.items, member.numbers = counts[depth], numbers[depth]
                        end
                    end
                    depth = depth - 1
                    ended = true
                elseif step == STRING_ENDS or step == WORD_ENDS then
                    ended = true
                else -- a value begins
                    if depth == 1 then
                        member = wanted[name]
                            and { from = at + 1, items = 0, numbers = 0, longest = 0, things = 0, begins = {} }
                    elseif depth == 2 and member and counts[2] < KEPT then
                        member.begins[counts[2] + 1] = at + 1
                    end
                    counts[depth] = counts[depth] + 1
                    if step == OPEN then
                        if depth == 0 and byte ~= 123 then
                            return nil, NOT_JSON
                        elseif depth == DEEPEST then
                            return nil, "The body is nested deeper than " .. DEEPEST .. " levels."
                        end
                        depth = depth + 1
                        ends[depth] = byte + 2
                        counts[depth], numbers[depth] = 0, 0
                        state = byte == 123 and OBJECT or LIST
                    else
                        state, begin = step - BEGIN, at
                        if state >= SIGN and state <= INTEGER then
                            numbers[depth] = numbers[depth] + 1
                        end
                    end
                end
                at = at + 1
                if ended then
                    state = AFTER
                    if depth == 1 and member then
                        member.to = at
                        found[name], member = member, nil
                    elseif depth == 0 then
                        if not text:find("^[ \t\r\n]*$", at + 1) then
                            return nil, NOT_JSON
                        end
                        return found
                    end
                end
            end
        end
        pause()
    end
    return nil, NOT_JSON
end

return scan
