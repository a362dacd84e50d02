#!/bin/sh
# The traffic engine links system libraries that minimal installations lack. Install them where that is allowed, else print
# the one line to run. Nothing else of the system is touched.
set -eu
missing=""
for pair in libX11.so.6:libx11-6 libXext.so.6:libxext6 libXrender.so.1:libxrender1 libGL.so.1:libgl1 libatomic.so.1:libatomic1; do
    library=${pair%%:*}
    package=${pair##*:}
    if ! PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q "$library"; then
        missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing system libraries:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; } && exit 0
fi
echo "The traffic engine needs system libraries that are missing. Run this line, then make again:" >&2
echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
exit 1
