mod export;
mod propagation;
mod spans;
