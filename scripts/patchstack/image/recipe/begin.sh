# The environment that everything is installed into. `python3` in the image is its interpreter, also in a login shell,
# whose profile sets PATH anew.
set -eu
export PYTHONDONTWRITEBYTECODE=1
python3.11 -m venv --without-pip /opt/sglang
echo 'PATH=/opt/sglang/bin:$PATH' > /etc/profile.d/sglang.sh
