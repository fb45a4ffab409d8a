"""The Lua scripts of the queue: each changes what belongs together in one step."""

# Scores are milliseconds, with fractions, of Redis's clock: first in is first out, and the clocks of machines do not
# matter. Jobs that come together are a microsecond apart.

# KEYS: queue, deferred jobs, then the key of each job. ARGV: lifetime in milliseconds, then of each job its id, its
# call, and the milliseconds until it may run.
ENQUEUE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
for n = 3, #KEYS do
    local at = 3 * n - 7
    local id, job, delay = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
    redis.call('SET', KEYS[n], job, 'PX', ARGV[1] + delay)
    redis.call('ZADD', delay > 0 and KEYS[2] or KEYS[1], 'NX', now + delay + n / 1000, id)
end
"""

# KEYS: queue, deferred jobs, versions, jobs that no version has taken, jobs that were set aside for this version, then
# the key of each job that was taken out of the queue. ARGV: this version, its lifetime in milliseconds, then the ids of
# the jobs that were taken. Records that the version has workers; if it is new, it gets the jobs that all others have
# left. Moves jobs that are due to the queue. Deletes the calls of taken jobs, unless they were queued again. Returns
# the milliseconds until the next job is due, or -1 if none waits.
PROMOTE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.17g', now))
if redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1]) == 1 then
    local left = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
    for n = 1, #left, 2 do
        redis.call('ZADD', KEYS[5], 'NX', left[n + 1], left[n])
    end
    redis.call('UNLINK', KEYS[4])
end
for n = 3, #ARGV do
    local id = ARGV[n]
    if not redis.call('ZSCORE', KEYS[1], id) and not redis.call('ZSCORE', KEYS[2], id) then
        redis.call('UNLINK', KEYS[n + 3])
    end
end
local range = {KEYS[2], '-inf', string.format('%.17g', now), 'BYSCORE', 'LIMIT', 0, 1000, 'WITHSCORES'}
local due = redis.call('ZRANGE', unpack(range))
for n = 1, #due, 2 do
    redis.call('ZREM', KEYS[2], due[n])
    redis.call('ZADD', KEYS[1], 'NX', due[n + 1], due[n])
end
local next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return next[2] and math.max(0, math.ceil(next[2] - now)) or -1
"""

# KEYS: versions, the set of the versions that have left the job, jobs that no version has taken. ARGV: the version that
# leaves the job now, the job's id, the prefix of the keys of jobs that are set aside, the lifetimes in seconds of the
# job and of the set of versions. Sets the job aside for a version that has workers and has not left it, and returns 1.
# If there is none, the next new version gets it, and the script returns 0.
SET_ASIDE = """
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
for _, version in ipairs(redis.call('ZRANGE', KEYS[1], string.format('%.17g', now), '+inf', 'BYSCORE')) do
    if redis.call('SISMEMBER', KEYS[2], version) == 0 then
        redis.call('ZADD', ARGV[3] .. version, 'NX', now, ARGV[2])
        redis.call('EXPIRE', ARGV[3] .. version, ARGV[4])
        return 1
    end
end
redis.call('ZADD', KEYS[3], 'NX', now, ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return 0
"""

# KEYS: queue, deferred jobs, the number of times that the job was given back. ARGV: the job's id, the milliseconds
# until it may be taken again, how often it may be given back, the lifetime of the number in seconds. Returns how often
# the job was given back.
GIVE_BACK = """
local times = redis.call('INCR', KEYS[3])
redis.call('EXPIRE', KEYS[3], ARGV[4])
if times <= tonumber(ARGV[3]) and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    local time = redis.call('TIME')
    redis.call('ZADD', KEYS[2], 'NX', time[1] * 1000 + time[2] / 1000 + ARGV[2], ARGV[1])
end
return times
"""

# KEYS: versions. Returns how many versions of the queue have workers now, by the clock of Redis.
HAS_WORKER = """
local time = redis.call('TIME')
return redis.call('ZCOUNT', KEYS[1], string.format('%.17g', time[1] * 1000 + time[2] / 1000), '+inf')
"""
