#!/bin/sh
# The traffic engine links system libraries that minimal installations lack. Install them where that is allowed, else print
# the one line to run. Nothing else of the system is touched.
set -eu
missing="" wanted=""
for pair in libX11.so.6:libx11-6 libXext.so.6:libxext6 libXrender.so.1:libxrender1 libGL.so.1:libgl1 libatomic.so.1:libatomic1; do
    library=${pair%%:*}
    package=${pair##*:}
    if ! PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q "$library"; then
        missing="$missing $package"
    fi
done
# The tests of keys in an HSM use a software one; without it they say 'skipped'.
command -v softhsm2-util >/dev/null 2>&1 || wanted=" softhsm2"
[ -n "$missing$wanted" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing system libraries:$missing$wanted"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing $wanted >/dev/null; } && exit 0
fi
[ -n "$missing" ] || exit 0
echo "The traffic engine needs system libraries that are missing. Run this line, then make again:" >&2
echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
exit 1
