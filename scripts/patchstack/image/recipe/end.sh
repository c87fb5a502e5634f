# SGLang must import, with what is really there. Then the image's last layer: the inventory and nothing else.
set -eu
export PYTHONDONTWRITEBYTECODE=1 HOME=/tmp/home CUDA_VISIBLE_DEVICES=
mkdir -p "$HOME"
(cd "$HOME" && python3 /context/smoke.py)
rm -rf /tmp/* /tmp/.[!.]*
python3 /context/collect.py
