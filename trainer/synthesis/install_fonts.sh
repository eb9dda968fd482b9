#!/usr/bin/env bash
# Installs the open fonts that the renderer draws with (Debian packages; needs root).
set -euo pipefail
typewriter=(fonts-courier-prime fonts-gnutypewriter fonts-freefont-ttf fonts-liberation fonts-texgyre fonts-cmu fonts-lmodern
    fonts-ocr-a fonts-ocr-b fonts-inconsolata fonts-anonymous-pro fonts-go fonts-league-mono fonts-3270)
book=(fonts-essays1743 fonts-goudybookletter fonts-century-catalogue fonts-oldstandard fonts-ebgaramond fonts-adf-baskervald
    fonts-adf-romande fonts-adf-accanthis fonts-adf-berenis fonts-junicode fonts-cardo fonts-lindenhill fonts-fanwood
    fonts-prociono fonts-linuxlibertine fonts-vollkorn fonts-quattrocento fonts-georgewilliams fonts-sil-gentiumplus
    fonts-sil-charis fonts-stix fonts-urw-base35)
modern=(fonts-dejavu-core fonts-crosextra-carlito fonts-crosextra-caladea fonts-lato fonts-open-sans fonts-roboto-slab
    fonts-cabin fonts-adf-gillius fonts-adf-universalis fonts-adf-verana fonts-paratype fonts-tuffy fonts-oxygen fonts-b612
    fonts-sil-andika fonts-jura fonts-comic-neue)
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${typewriter[@]}" "${book[@]}" "${modern[@]}"
