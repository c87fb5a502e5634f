# Where the loader and the compiler look for CUDA: the wheels carry neither lib64 nor the names without a version, by
# which flashinfer links (-L$CUDA_HOME/lib64 -lcudart -lcuda; the last is the driver, and comes with it).
set -eu
echo "$CUDA_HOME/lib" > /etc/ld.so.conf.d/cuda.conf
ln -s lib "$CUDA_HOME/lib64"
for library in "$CUDA_HOME"/lib/*.so.*; do
  plain="${library%%.so.*}.so"
  [ -e "$plain" ] || ln -s "$(basename "$library")" "$plain"
done
ldconfig
rm -rf /var/cache/ldconfig
