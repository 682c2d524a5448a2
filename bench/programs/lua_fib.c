// Lua's interpreter at work: calls and additions in its virtual machine, a computed goto for each instruction.
#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"
#include <stdio.h>

int main(void) {
  lua_State *lua = luaL_newstate();
  if (!lua)
    return 1;
  luaL_openlibs(lua);
  int failed = luaL_dostring(lua, "local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end "
                                  "print(fib(25))");
  lua_close(lua);
  return failed;
}
