// The public face: buffers that dispatch tokens to experts and combine what comes back.

export {};
