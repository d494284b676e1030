// The public face: collectives over nodes and devices.

export {};
