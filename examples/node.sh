#!/usr/bin/env bash
# A workflow node: prints each new state of a connection as it arrives. Needs bash 4.4, jq and the nats CLI.
#
#     NATS_URL=nats://127.0.0.1:4222 NATS_USER=demo NATS_PASSWORD=… examples/node.sh A… slack workspace1
set -euo pipefail

[[ $# == 3 ]] || {
  echo "usage: node.sh <account> <integration> <connection>" >&2
  exit 2
}
subject=ms.integration.oauth.$1.$2.$3 call=ms.oauth.$1.token
question=$(jq -nc --arg integration "$2" --arg name "$3" '{integration_id: $integration, connection_id: $name}')

# Seconds. Pauses between questions without a newer answer double from the first to the longest.
first_pause=1 longest_pause=30
# Workers answer within this time, also if they have to wait for the provider.
timeout=25s
# Seconds until the next question when nothing is expected.
idle=86400

sequence=0 status="" token="" near_expiry="" pause=$first_pause unknown_since=0 ask_at=0
errors=$(mktemp)
follower=""
trap 'rm -f "$errors"; [[ -z $follower ]] || kill "$follower" 2>/dev/null' EXIT

# Here a node would call its provider with $token. A token has no place in a log.
show() { echo "sequence $sequence: $status, a token of ${#token} characters"; }

# Keeps a state if it is newer. It arrives on standard input, because other users of the machine see the arguments of programs.
keep() {
  local state
  mapfile -t state < <(jq -r '
    def seconds: sub("\\.[0-9]+"; "") | sub("\\+00:00$"; "Z") | fromdateiso8601;
    .sequence, .status, .access_token // "",
    if .expiry then (.expiry | seconds) - ([30, (.expires_in // 0) / 4] | min) | floor else "" end')
  if ((${#state[@]} == 4 && state[0] > sequence)); then
    sequence=${state[0]} status=${state[1]} token=${state[2]} near_expiry=${state[3]}
    pause=$first_pause unknown_since=0
    show
    until_near_expiry
  fi
}

# A push does not have the record's sequence in its body: the server adds it as a header.
pushed() {
  keep < <(jq -c '(.Data | @base64d | fromjson) + {sequence: (.Header["Nats-Sequence"][0] | tonumber)}' <<<"$1")
}

# A worker refreshes a token that is asked for so near its expiry.
until_near_expiry() {
  if [[ -z $near_expiry ]]; then
    ask_at=$((now + idle))
  elif ((near_expiry > now)); then
    ask_at=$near_expiry
  else
    after_pause
  fi
}

# Random, so that many nodes do not ask at once.
after_pause() {
  ask_at=$((now + pause + RANDOM % (pause + 1)))
  pause=$((2 * pause < longest_pause ? 2 * pause : longest_pause))
}

# No login yet, or a deletion that was missed. A push arrives before its connection can be found: so ask twice.
unknown() {
  if ((sequence == 0)) || [[ $status == revoked ]]; then
    ask_at=$((now + idle)) # The next login is a push.
  elif ((unknown_since != sequence)); then
    unknown_since=$sequence
    after_pause
  else
    status=revoked token="" near_expiry="" ask_at=$((now + idle))
    show
  fi
}

# Asks a worker, and chooses the time of the next question.
ask() {
  local answer code
  # The CLI prints the body on standard output, and headers and errors on standard error.
  answer=$(nats --timeout $timeout request "$call" "$question" 2>"$errors") || true
  code=$(sed -n 's/.*Nats-Service-Error-Code: //p' "$errors")
  now=$(date +%s)
  if [[ -z $code && $answer == *"{"* ]]; then
    unknown_since=0
    until_near_expiry
    keep <<<"$answer"
    return
  fi
  cat "$errors" >&2 # The bus or the workers are away, or a worker refused.
  if [[ $code == 404 ]]; then unknown; else after_pause; fi
}

# Prints a message as JSON, and a line for each reconnect. Each ends with a zero byte.
follow() {
  exec nats --trace sub --dump=- "$subject" "$ready" 2> >(
    while IFS= read -r line; do
      [[ $line != *">>> Reconnected"* ]] || printf 'reconnected\0'
    done
  )
}

# The server must have the subscription before the question. Both subscriptions are made in order, so once the second one
# receives a message, the first one exists.
ready=_INBOX.ready$RANDOM$RANDOM$RANDOM
exec 3< <(follow)
follower=$!
message=""
until [[ $message == *"$ready"* ]]; do
  sent=$(nats pub "$ready" "" 2>&1) || { echo "$sent" >&2 && sleep 1; } # The bus is away, or refuses the user.
  IFS= read -r -d '' -t 1 -u 3 message || (($? > 128)) || exit 1
done
message=""

while true; do
  now=$(date +%s)
  if ((ask_at <= now)); then
    ask
    continue
  fi
  part=""
  if IFS= read -r -d '' -t $((ask_at - now)) -u 3 part; then
    message+=$part
    now=$(date +%s)
    case $message in
      reconnected) pause=$first_pause ask_at=0 ;; # A push that was sent in between is missed.
      *"\"Subject\":\"$subject\""*) pushed "$message" ;;
    esac
    message=""
  elif (($? > 128)); then
    message+=$part # The time is over in the middle of a message.
  else
    echo "the subscription has ended" >&2
    exit 1
  fi
done
