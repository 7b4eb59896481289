# shellcheck shell=bash
# What .ci/test and .ci/nightly share: parts with verdicts, and lanes of scenarios. They source it in the repository's root,
# after .ci/setup.
unset PYTHONDONTWRITEBYTECODE # with it, every start of Ansible compiles anew what it imports
export PATH="$PWD/.venv/bin:$PATH" ANSIBLE_FORCE_COLOR=0 NO_COLOR=1
limit=2400 # seconds after which a scenario hangs
fresh=no   # whether each scenario begins on bare hosts, or on what the one before it in its lane left
beside=()  # lanes that run at the same time
alone=()   # lanes that follow one by one
results="$PWD/.test-results"
rm -rf "$results"
mkdir "$results"
touch "$results/verdicts"

# Ticks of all cores since the machine's start: all of them, and those idle.
ticks() {
  awk '$1 == "cpu" { for (i = 2; i <= 9; i++) sum += $i; print sum, $5 + $6 }' /proc/stat
}
read -r ticks_before idle_before < <(ticks)

# part NAME COMMAND...: runs one part, keeps its output, and appends its name, exit code and seconds to the verdicts.
part() {
  local name=$1 started=$SECONDS code=0
  shift
  printf '=== %s\n' "$name"
  "$@" >"$results/$name.log" 2>&1 </dev/null || code=$?
  printf '%s %s %s\n' "$name" "$code" "$((SECONDS - started))" >>"$results/verdicts"
  if [ "$code" -ne 0 ]; then tail -n 80 "$results/$name.log"; fi
  printf '=== %s: %s (%d s)\n' "$name" "$([ "$code" -eq 0 ] && echo ok || echo FAILED)" "$((SECONDS - started))"
}

# scenario NAME: one that hangs is ended, so that its log is shown and the others are run.
scenario() {
  if [ "$fresh" = yes ]; then rackserve lab reset || return; fi
  molecule reset --scenario-name "$1" &&
    timeout --kill-after=30 "$limit" molecule test --scenario-name "$1" --destroy never
}

# A row of `beside` or `alone` is a lane: LAB NETWORK HOST,HOST... SCENARIO... It is a lab with hosts of its own, and scenarios
# that run there one after the other.

# choose NAME...: sets `wanted` to these scenarios, by default all of the rows; ends the script at one that no row has.
choose() {
  local known name
  known=" $(printf '%s\n' "${beside[@]}" "${alone[@]}" | tr -s ' ' | cut -d' ' -f4- | paste -sd' ') "
  for name in "$@"; do
    if [[ "$known" != *" $name "* ]]; then
      printf 'no scenario %s; there are:%s\n' "$name" "$known" >&2
      exit 2
    fi
  done
  wanted=" ${*:-$known} "
}

# lane LAB NETWORK HOSTS SCENARIO...: runs those of its scenarios that are wanted.
lane() {
  local network=$2 hosts name chosen=()
  for name in "${@:4}"; do
    if [[ "$wanted" == *" $name "* ]]; then chosen+=("$name"); fi
  done
  if [ "${#chosen[@]}" -eq 0 ]; then return; fi
  export RACKSERVE_LAB=$1 RACKSERVE_TEST_LAB=$1 RACKSERVE_TEST_PREFIX=$network
  IFS=, read -ra hosts <<<"$3"
  part "lab_up_$1" rackserve lab up --prefix "$network" "${hosts[@]/#/--host=}"
  for name in "${chosen[@]}"; do part "scenario_$name" scenario "$name"; done
}

# Removes the labs of all rows.
labs_down() {
  local row
  for row in "${beside[@]}" "${alone[@]}"; do rackserve lab down --name "${row%% *}" || return; done
}

# Runs all lanes.
run_lanes() {
  local row
  # shellcheck disable=SC2086 # a row is words
  for row in "${beside[@]}"; do lane $row & done
  wait
  # shellcheck disable=SC2086
  for row in "${alone[@]}"; do lane $row; done
}

# Prints the verdicts as a table, and how much of the cores was used meanwhile, by whoever.
print_verdicts() {
  local all idle
  read -r all idle < <(ticks)
  printf '\n%-24s %-7s %s\n' part result seconds
  awk '{ printf "%-24s %-7s %7d\n", $1, $2 ? "FAILED" : "ok", $3 }' "$results/verdicts"
  printf '%-32s %7d\n' "by the clock" "$SECONDS"
  printf '%-32s %6d%%\n\n' "cores busy" "$((100 - 100 * (idle - idle_before) / (all - ticks_before + 1)))"
}
