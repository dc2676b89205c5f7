# shellcheck shell=bash
# What checks.sh and live.sh have in common: a check is a command that ends well. Sourced, with $work a folder.

: "${work:?}"
passed=0 failed=0 skipped=0

# Runs a command, and counts whether it ends well: check WHAT COMMAND...
check() {
  local what=$1
  shift
  if "$@" >"$work/told" 2>&1; then
    passed=$((passed + 1))
    echo "  ok      $what"
  else
    failed=$((failed + 1))
    echo "  FAILED  $what"
    sed 's/^/            /' "$work/told"
  fi
}
not() { ! "$@"; }
is() { [[ $2 == "$1" ]] || { printf 'wanted: %s\nfound:  %s\n' "$1" "$2" && false; }; }
same() { diff "$1" "$2"; }
told() { grep -F -e "$1" "$work/output" || { cat "$work/output" && false; }; }

# Prints the sums, and ends well if nothing failed.
conclude() {
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  ((failed == 0))
}
