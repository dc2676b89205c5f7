}
local requests, turn = {}, 0
function init()
  for number, token in ipairs(tokens) do
    requests[number] = wrk.format("GET", "/petstore/1.0/pet/" .. number, { ["Authorization"] = "Bearer " .. token })
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
