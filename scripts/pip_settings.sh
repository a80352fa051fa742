# Sourced: lets uv go where the user's pip is set up to go (index, certificates, proxy). uv reads none of it by itself.

pip_config=$(.venv/bin/python -m pip config list 2>/dev/null || true)

# pip_setting NAME: its value, the environment before the files; empty where it is not set.
pip_setting() {
    local section line value=
    for section in global install :env:; do
        line=$(grep -m 1 -F "$section.$1=" <<<"$pip_config") || continue
        value=${line#*=}
        value=${value#\'} value=${value%\'}
    done
    printf '%s' "${value//\\n/ }"
}

# use NAME VALUE: exports a variable that neither is set nor would be empty.
use() {
    if [ -n "$2" ] && [ -z "${!1-}" ]; then export "$1=$2"; fi
}

use UV_DEFAULT_INDEX "$(pip_setting index-url)"
use UV_INDEX "$(pip_setting extra-index-url)"
use UV_FIND_LINKS "$(pip_setting find-links | tr ' ' ',')"
use UV_INSECURE_HOST "$(pip_setting trusted-host)"
use SSL_CERT_FILE "$(pip_setting cert)"
use ALL_PROXY "$(pip_setting proxy)"
use UV_SYSTEM_CERTS true                 # a company's own certificate authority, as pip honours it
use UV_INDEX_STRATEGY unsafe-best-match  # pip's way with several indexes
use UV_HTTP_TIMEOUT 180                  # torch's wheels are large
