# Sourced by the other scripts: where this project's tools are found.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_HOME="${CARGO_HOME:-${HOME:-/root}/.cargo}"
export PATH="$CARGO_HOME/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Whether cargo runs here with its parts, in a version that the workspace accepts.
cargo_works() {
    timeout 300 cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1 &&
        [ "$(rustc --version | cut -d. -f2)" -ge "$(sed -n 's/^rust-version = "1\.\([0-9]*\)"/\1/p' Cargo.toml)" ]
}

# rust-toolchain.toml names the version that developers share. Where rustup neither has it nor can fetch it, another that is new enough does.
use_a_working_cargo() {
    ! cargo_works || return 0
    local toolchain
    for toolchain in stable bpf nightly; do
        export RUSTUP_TOOLCHAIN="$toolchain"
        ! cargo_works || return 0
    done
    unset RUSTUP_TOOLCHAIN
    echo "no cargo with clippy and rustfmt that is new enough was found" >&2
    return 1
}

require_root() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "$1 must be run as root: it makes network namespaces and loads XDP programs" >&2
        exit 1
    fi
}
