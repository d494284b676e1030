// Reads and writes the safetensors format.
export {};
