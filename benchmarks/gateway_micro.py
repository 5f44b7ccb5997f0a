"""The gateway's cost per request while one works on it: CPU, requests/s and latency beside the direct call.

    python benchmarks/gateway_micro.py --gateway-pid PID --gateway URL --provider URL --key qk_... [--seconds 5]

Drives a gateway that runs already with wrk, plain and streamed; the figures that count are made by `make bench`.
"""

from __future__ import annotations

import argparse
import json

from measure import Closed, cpu_seconds, resident_mebibytes, wrk

#: About 300 bytes, as in the table of the performance page.
CONTENT = "Where did the money go this month, and which team spent the most of it? " * 3


def body(chunks: int, *, stream: bool) -> bytes:
    """A chat request of about 300 bytes."""
    message = {"role": "user", "content": CONTENT}
    asked = {"model": "fast", "messages": [message], "max_tokens": chunks, "stream": stream}
    return json.dumps(asked).encode()


def row(name: str, result: Closed, cpu: float | None) -> str:
    """One line of figures."""
    cost = "" if cpu is None else f"{cpu * 1e3 / max(1, result.requests):7.3f} ms CPU each"
    return (
        f"{name:34} {result.requests_per_second:8.0f}/s  p50 {result.p50_milliseconds:7.2f} ms  "
        f"p99 {result.p99_milliseconds:7.2f} ms  errors {result.errors}  {cost}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gateway-pid", type=int, required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--seconds", type=int, default=5)
    given = parser.parse_args()
    headers = {"Authorization": f"Bearer {given.key}", "Content-Type": "application/json"}
    cases = [("plain", 1, False), ("plain", 32, False), ("stream", 1, True), ("stream", 32, True)]
    for name, connections, stream in cases:
        asked = body(24 if stream else 16, stream=stream)
        for target, url in (("direct", given.provider), ("gateway", given.gateway)):
            sent = asked.replace(b'"fast"', b'"sim-small"') if target == "direct" else asked
            before = cpu_seconds(given.gateway_pid)
            result = wrk(f"{url}/chat/completions", sent, headers, connections=connections, seconds=given.seconds)
            used = cpu_seconds(given.gateway_pid) - before if target == "gateway" else None
            print(row(f"{name} x{connections} {target}", result, used))
    print(f"resident {resident_mebibytes(given.gateway_pid):.0f} MiB")


if __name__ == "__main__":
    main()
