//! ballast-kernels
