#!/usr/bin/env bash
# Runs the README's second command and asks the server one thing, as a new user would.
set -euo pipefail
cd "$(dirname "$0")/.."

log="$(mktemp)"
npm start -- --port 0 >"$log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true' EXIT

url=""
for _ in $(seq 1 300); do
  url="$(grep -oE 'http://127\.0\.0\.1:[0-9]+' "$log" | head -n 1 || true)"
  if [ -n "$url" ] && curl --silent --fail "$url/health" >/dev/null; then break; fi
  if ! kill -0 "$pid" 2>/dev/null; then
    cat "$log"
    echo "npm start ended before it was ready"
    exit 1
  fi
  sleep 0.1
done

curl --silent --show-error --fail "$url/v1/completions" -H 'content-type: application/json' \
  -d '{"model":"demo","prompt":"def fibonacci(n):\n","max_tokens":16,"temperature":0}' |
  grep -q '"text":"    \\"Same as a public' || {
  cat "$log"
  echo "npm start answered something else"
  exit 1
}
curl --silent --show-error --fail "$url/" | grep -q '<title>' || {
  echo "the console is not served"
  exit 1
}
kill -TERM "$pid"
wait "$pid" || true
# npm ends when it is told to; the server behind it must, too.
for _ in $(seq 1 100); do
  curl --silent --fail "$url/health" >/dev/null || break
  sleep 0.1
done
if curl --silent --fail "$url/health" >/dev/null; then
  echo "the server goes on after npm start was stopped"
  exit 1
fi
echo "npm start: ready, answered, stopped"
