# Sourced by the other scripts: where this project's tools are found.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_HOME="${CARGO_HOME:-${HOME:-/root}/.cargo}"
export PATH="$CARGO_HOME/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# The pinned toolchain is a lower bound: where rustup has it not and cannot fetch it, the linked compiler of the distribution does.
use_a_working_cargo() {
    if command -v rustup >/dev/null && ! timeout 300 cargo --version >/dev/null 2>&1; then
        export RUSTUP_TOOLCHAIN=bpf
    fi
}

require_root() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "$1 must be run as root: it makes network namespaces and loads XDP programs" >&2
        exit 1
    fi
}
