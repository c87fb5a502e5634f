# Install what locks/$1.txt names: these files or none, nothing that they say they need, nothing from a network.
# pip runs out of its wheel and is not in the image. Bytecode holds the time of its source, so none is kept.
set -eu
[ -s "/context/locks/$1.txt" ] || exit 0
export PYTHONDONTWRITEBYTECODE=1
pip=$(echo /context/wheels/pip-[0-9]*.whl)
python3 "$pip/pip" install --quiet --disable-pip-version-check --no-input --no-cache-dir \
  --no-index --find-links /context/wheels --no-deps --require-hashes --only-binary :all: --no-compile \
  --requirement "/context/locks/$1.txt"
find /opt/sglang -name __pycache__ -prune -exec rm -rf {} +
