# SGLang must import, with what is really there. Then the image's last layer: the inventory and nothing else.
set -eu
export PYTHONDONTWRITEBYTECODE=1 HOME=/tmp/home CUDA_VISIBLE_DEVICES=
mkdir -p "$HOME"
(cd "$HOME" && python3 /mnt/smoke.py)
rm -rf /tmp/* /tmp/.[!.]*
python3 /mnt/collect.py
