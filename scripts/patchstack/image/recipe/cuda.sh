# Where the loader and the compiler look for CUDA. The wheels carry no lib64, no unversioned names and no stub of the
# driver, by which nvcc's callers link (flashinfer: -L$CUDA_HOME/lib64 -lcudart -lcuda).
set -eu
echo "$CUDA_HOME/lib" > /etc/ld.so.conf.d/cuda.conf
ln -s lib "$CUDA_HOME/lib64"
for library in "$CUDA_HOME"/lib/*.so.*; do
  plain="${library%%.so.*}.so"
  [ -e "$plain" ] || ln -s "$(basename "$library")" "$plain"
done
ldconfig
rm -rf /var/cache/ldconfig
