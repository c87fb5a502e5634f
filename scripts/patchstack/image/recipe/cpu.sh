# The stand-ins load whenever Python starts; they refuse to where the real kernels are, or CUDA is.
set -eu
export PYTHONDONTWRITEBYTECODE=1
site=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' /opt/patchstack/standins 'import cuda_standins; cuda_standins.install()' > "$site/cuda_standins.pth"
