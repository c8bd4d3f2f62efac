-- One question of one program about one lane, answered in one piece: decision.py, line by line, on the server's clock.
-- KEYS[1] the lane; ARGV[1] the question or "" to look, ARGV[2] the time where a test owns it, else "".
local LATE, BREATH, AWAY, HUSH, AHEAD = 500000, 100000, 1000000, 350000, 200000
local MINUTE = 60
local MAGIC = 'ratelimit 1'

local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local raw = redis.call('GET', KEYS[1])
local lane
if raw then
  local ok, found = pcall(cmsgpack.unpack, raw)
  if not ok or type(found) ~= 'table' or found.magic ~= MAGIC then
    return redis.error_reply('FOREIGN the key holds something else than shared limits')
  end
  lane = found
else
  lane = {magic = MAGIC, name = '', born = 0, seen = 0, tag = 0, flow = 0, answered = false,
          limits = {}, holders = {}, facts = {}}
end

local function find(list, item)
  for at = 1, #list do if list[at] == item then return at end end
end

local function of(amounts, units, unit)
  local at = find(units, unit)
  return at and amounts[at] or 0
end

local function interval(l) return l.window * 1e6 / (l.amount * l.share) end
local function ceiling(l) return math.max(l.amount - l.reserve, 0) end
local function capacity(l)
  if l.burst >= 0 then return math.min(l.burst + AHEAD / interval(l), ceiling(l)) end
  return ceiling(l)
end

local function take(l, amount)
  if amount > 0 then
    l.full_at = math.ceil(math.max(l.full_at, now) + amount * interval(l))
  elseif amount < 0 and l.full_at > now then
    l.full_at = math.ceil(math.max(l.full_at + amount * interval(l), now))
  end
end

local function ready_at(l, ahead, amount)
  local cap, ready = capacity(l), nil
  if amount <= cap then
    ready = math.max(l.full_at, now) + (ahead + amount - cap) * interval(l)
  else
    ready = math.max(l.full_at + (amount - math.min(amount, ceiling(l))) * interval(l), now) + ahead * interval(l)
  end
  return math.max(ready, l.closed)
end

local function hungry(h)
  for _, amount in ipairs(h.unmet) do if amount > 0 then return true end end
  return false
end

local function clocked()
  local brief = {}
  for _, l in ipairs(lane.limits) do if l.window <= MINUTE then brief[#brief + 1] = l end end
  return brief[1] and brief or lane.limits
end

local function time_of(units, amounts)
  local longest
  for _, l in ipairs(clocked()) do
    local at = find(units, l.unit)
    if at then
      local length = amounts[at] * interval(l)
      if not longest or length > longest then longest = length end
    end
  end
  return longest or 0
end

local function held_by_others(holder, unit)
  local held = 0
  for _, h in ipairs(lane.holders) do
    if h.id ~= holder.id then held = held + of(h.granted, h.units, unit) end
  end
  return held
end

local function kept(l, held)
  return {unit = l.unit, window = l.window, scope = l.scope, amount = l.amount, share = l.share, reserve = l.reserve,
          burst = l.burst, top = l.top, slice = l.slice, spread = l.spread, proven = l.proven, version = l.version,
          missing = math.max(l.full_at - now, 0), closed = math.max(l.closed - now, 0), corrected = l.corrected,
          taken = l.taken, held = held, ours = l.ours or 0}
end

if ARGV[1] == '' then
  local limits, holders = {}, {}
  for _, l in ipairs(lane.limits) do limits[#limits + 1] = kept(l, 0) end
  for _, h in ipairs(lane.holders) do
    if h.expires > now then
      holders[#holders + 1] = {name = h.name, weight = h.weight, priority = h.priority, units = h.units,
                               holds = h.granted, wants = h.unmet, total = h.total}
    end
  end
  return cmsgpack.pack({lane = lane.name, limits = limits, holders = holders})
end

local ask = cmsgpack.unpack(ARGV[1])

if ask.at ~= 0 and ask.jump == 0 and now - ask.at > LATE then
  return cmsgpack.pack({number = ask.number, now = now, late = true, epoch = 0, granted = {}, hint = 0, programs = 0,
                        part = 0, limits = {}, facts = {}})
end

local function answer(holder)
  local weights, limits = 0, {}
  for _, h in ipairs(lane.holders) do weights = weights + h.weight end
  for _, l in ipairs(lane.limits) do limits[#limits + 1] = kept(l, held_by_others(holder, l.unit)) end
  return cmsgpack.pack({number = holder.number, now = now, late = false, epoch = lane.born, granted = holder.granted,
                        hint = holder.hint, programs = #lane.holders, part = holder.weight / weights, limits = limits,
                        facts = lane.facts})
end

local function save()
  local full = now
  for _, l in ipairs(lane.limits) do full = math.max(full, l.full_at, l.closed) end
  redis.call('SET', KEYS[1], cmsgpack.pack(lane), 'PX', string.format('%.0f', math.ceil((full - now) / 1000) + 3600000))
end

local function without(id)
  local left = {}
  for _, h in ipairs(lane.holders) do if h.id ~= id then left[#left + 1] = h end end
  return left
end

-- the clock
if lane.born == 0 then lane.born = now; lane.seen = now end
local jump = math.min(ask.jump, now - lane.seen)
if jump ~= 0 then
  lane.born = lane.born + jump
  lane.flow = lane.flow + jump
  for _, l in ipairs(lane.limits) do l.full_at = l.full_at + jump; l.closed = l.closed + jump end
  for _, h in ipairs(lane.holders) do h.expires = h.expires + jump end
end
lane.flow = math.max(lane.flow, now - BREATH)
local spent = false
for _, amount in ipairs(ask.spent) do if amount ~= 0 then spent = true end end
if spent and now - lane.seen > AWAY then lane.flow = now + HUSH end
lane.seen = now

local live, holder = {}, nil
for _, h in ipairs(lane.holders) do
  if h.expires > now then
    live[#live + 1] = h
    if h.id == ask.holder then holder = h end
  end
end
lane.holders = live
if holder and ask.number <= holder.number then
  holder.expires = now + ask.lasts
  save()
  return answer(holder)
end
if ask.answered then lane.answered = true end
lane.name = ask.lane

-- what it has learnt
local function same(l, t) return l.unit == t.unit and l.window == t.window and l.scope == t.scope end
local function tune(l, t)
  local missing = math.max(l.full_at - now, 0) / interval(l)
  l.amount = t.amount
  l.reserve = t.reserve
  if l.full_at > now then l.full_at = math.ceil(now + missing * (l.window * 1e6 / (l.amount * t.share))) end
end
local alone = #lane.holders == 0
if alone then
  local left = {}
  for _, l in ipairs(lane.limits) do
    local kept = l.proven
    for _, t in ipairs(ask.limits) do kept = kept or same(l, t) end
    if kept then left[#left + 1] = l end
  end
  lane.limits = left
end
for _, t in ipairs(ask.limits) do
  local limit
  for _, l in ipairs(lane.limits) do if same(l, t) then limit = l end end
  if not limit then
    limit = {unit = t.unit, window = t.window, scope = t.scope, amount = t.amount, share = t.share, reserve = t.reserve,
             burst = t.burst, top = t.top, slice = t.slice, spread = t.spread, proven = t.proven, full_at = now,
             closed = now, version = 1, corrected = 0, taken = 0, ours = 0}
    take(limit, t.missing)
    lane.limits[#lane.limits + 1] = limit
  elseif t.changed and ask.epoch == lane.born and t.version == limit.version then
    limit.version = limit.version + 1
    tune(limit, t)
    limit.share, limit.burst, limit.top, limit.slice, limit.spread = t.share, t.burst, t.top, t.slice, t.spread
    limit.proven = limit.proven or t.proven
  elseif t.version == 0 and not limit.proven and (t.amount < limit.amount or (alone and t.amount ~= limit.amount)) then
    limit.version = limit.version + 1
    tune(limit, t)
  end
  if ask.epoch ~= 0 and ask.epoch ~= lane.born then
    limit.full_at = math.max(limit.full_at, math.ceil(now + t.missing * interval(limit)))
  end
  limit.closed = math.max(limit.closed, now + t.closed)
end
for _, fact in ipairs(ask.facts) do
  local facts = {}
  for _, known in ipairs(lane.facts) do if known[1] ~= fact[1] then facts[#facts + 1] = known end end
  facts[#facts + 1] = fact
  lane.facts = facts
end

-- what became of earlier leases
for _, l in ipairs(lane.limits) do
  local told
  for at = #ask.limits, 1, -1 do if same(l, ask.limits[at]) then told = ask.limits[at] end end
  local known = 0
  if told and ask.epoch == lane.born then known = l.corrected - told.basis end
  if told and told.shift ~= 0 then
    local shift = told.shift
    if told.shift * known > 0 then shift = told.shift - known end
    if shift * told.shift > 0 then
      take(l, shift)
      l.corrected = l.corrected + shift
    end
  end
  local at = find(ask.units, l.unit)
  if at then
    take(l, -ask.give[at])
    if ask.epoch == 0 or ask.epoch == lane.born then
      local seen = math.min(ask.spent[at], math.max(known, 0))
      take(l, ask.spent[at] - seen)
      l.ours = (l.ours or 0) + seen
    end
    if holder then take(l, math.max(ask.total[at] - of(holder.total, holder.units, l.unit), 0)) end
  end
end

if not holder then
  holder = {id = ask.holder, name = ask.name, tag = lane.tag, unmet = {}, granted = {}, total = {}, units = {}}
  lane.holders[#lane.holders + 1] = holder
elseif not hungry(holder) then
  holder.tag = math.max(holder.tag, lane.tag)
end
holder.expires, holder.number = now + ask.lasts, ask.number
holder.weight, holder.priority = ask.weight, ask.priority
holder.units, holder.need = ask.units, ask.need

-- hand back
for _, l in ipairs(lane.limits) do
  local at = find(ask.units, l.unit)
  if at then take(l, -ask.has[at]) end
  local held = held_by_others(holder, l.unit)
  if held > 0 then l.full_at = math.max(l.full_at, math.ceil(now + held * interval(l))) end
end

local function before(other, unit)
  if other.priority < holder.priority then return of(other.unmet, other.units, unit) end
  if other.priority > holder.priority or other.tag > holder.tag
     or (other.tag == holder.tag and other.id > holder.id) then
    return 0
  end
  local behind = (holder.tag - other.tag) * other.weight / math.max(time_of(other.units, other.unmet), 1)
  return math.max(of(other.need, other.units, unit),
                  math.floor(math.min(behind, 1) * of(other.unmet, other.units, unit)))
end

local function hint_of()
  local hint = math.max(lane.flow - now, 0)
  for _, l in ipairs(lane.limits) do
    local need = of(ask.need, ask.units, l.unit)
    if need > 0 then
      local ahead = 0
      for _, h in ipairs(lane.holders) do
        if h.id ~= holder.id and hungry(h) then ahead = ahead + before(h, l.unit) end
      end
      local ready = ready_at(l, ahead, need)
      if not lane.answered and l.taken > 0 and l.window <= MINUTE then
        ready = math.max(ready, lane.born + (l.taken + need) * interval(l))
      end
      hint = math.max(hint, math.ceil(ready - now))
    end
  end
  return hint
end

local function level_of(claims, room)
  local bends = {}
  for _, c in ipairs(claims) do bends[#bends + 1] = {c[1], c[3]} end
  for _, c in ipairs(claims) do bends[#bends + 1] = {c[1] + c[2] / c[3], -c[3]} end
  table.sort(bends, function(a, b) if a[1] ~= b[1] then return a[1] < b[1] end return a[2] < b[2] end)
  local level, width = bends[1][1], 0
  for _, bend in ipairs(bends) do
    if width > 1e-9 then
      if (bend[1] - level) * width >= room then return level + room / width end
      room = room - (bend[1] - level) * width
    end
    level = bend[1]
    width = width + bend[2]
  end
  return math.huge
end

local function beyond(whole, part)
  local rest = {}
  for at = 1, #whole do rest[at] = math.max(whole[at] - part[at], 0) end
  return rest
end

local function part_of()
  local most = time_of(ask.units, beyond(ask.want, ask.need))
  if most <= 0 then return 0 end
  local peers = {}
  for _, h in ipairs(lane.holders) do
    if h.id ~= holder.id and hungry(h) and h.priority <= holder.priority then peers[#peers + 1] = h end
  end
  local room, most_of_it = (now - lane.flow) * ask.pace, 1
  for _, l in ipairs(lane.limits) do
    local at = find(ask.units, l.unit)
    if at and ask.want[at] > 0 then
      local left = capacity(l) - (math.max(l.full_at, now) - now) / interval(l)
      left = left - ask.need[at]
      for _, h in ipairs(peers) do
        left = left - of(h.priority < holder.priority and h.unmet or h.need, h.units, l.unit)
      end
      local more = ask.want[at] - ask.need[at]
      if l.window <= MINUTE then
        room = math.min(room, left * interval(l))
      elseif more > 0 then
        most_of_it = math.min(most_of_it, left / more)
      end
    end
  end
  if room <= 0 or most_of_it <= 0 then return 0 end
  local mine = {holder.tag + time_of(ask.units, ask.need) / holder.weight, most, holder.weight}
  local claims = {mine}
  for _, h in ipairs(peers) do
    if h.priority == holder.priority then
      claims[#claims + 1] = {h.tag + time_of(h.units, h.need) / h.weight, time_of(h.units, beyond(h.unmet, h.need)),
                             h.weight}
    end
  end
  local part = math.min(math.max((level_of(claims, room) - mine[1]) * mine[3], 0) / most, most_of_it)
  local least
  for at = 1, #ask.want do
    local more = ask.want[at] - ask.need[at]
    if more > 0 and (not least or more < least) then least = more end
  end
  return math.floor(part * least) / least
end

-- grant
local more = false
for at = 1, #ask.units do if ask.want[at] > ask.has[at] then more = true end end
local hint, granted = 0, {}
if more then hint = hint_of() end
if not more or hint > 0 then
  for at = 1, #ask.units do granted[at] = math.min(ask.keep[at], ask.has[at]) end
else
  local part = lane.answered and part_of() or 0
  for at = 1, #ask.units do
    granted[at] = math.max(ask.need[at] + math.floor(part * math.max(ask.want[at] - ask.need[at], 0)), ask.keep[at])
  end
  lane.tag = math.max(lane.tag, holder.tag)
end
local fresh = {}
for at = 1, #ask.units do fresh[at] = granted[at] - ask.has[at] end
for _, l in ipairs(lane.limits) do
  local at = find(ask.units, l.unit)
  if at then
    take(l, granted[at])
    l.taken = l.taken + fresh[at]
  end
end
local busy = time_of(ask.units, fresh)
for _, l in ipairs(lane.limits) do
  if l.window <= MINUTE then
    lane.flow = math.min(lane.flow + math.floor(busy / ask.pace), now + BREATH)
    break
  end
end
holder.tag = holder.tag + math.floor(busy / holder.weight)
holder.total, holder.unmet = {}, {}
for at = 1, #ask.units do
  holder.total[at] = ask.total[at] + math.max(fresh[at], 0)
  holder.unmet[at] = math.max(ask.want[at] - granted[at], 0)
end
holder.granted, holder.hint = granted, hint
local said = answer(holder)
if ask.lasts <= 0 then lane.holders = without(ask.holder) end
save()
return said
