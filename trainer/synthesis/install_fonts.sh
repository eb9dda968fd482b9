#!/usr/bin/env bash
# Installs the open fonts that the renderer draws with, the Debian packages of font_packages.tsv (needs root).
set -euo pipefail
mapfile -t packages < <(grep -v '^#' "$(dirname "$0")/font_packages.tsv" | cut -f 1)
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${packages[@]}"
