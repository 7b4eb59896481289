-- The globals that nginx gives to Lua.
std = "ngx_lua"
