-- What wrk prints at its end: one line of JSON. Times in microseconds.
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '@wrk {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
    '"refused": %d, "broken": %d, "late": %d, "status": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect, errors.read + errors.write, errors.timeout, errors.status))
end
