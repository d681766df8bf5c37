// A browser's port is an endpoint of comlink as it is.
export default (port) => port
