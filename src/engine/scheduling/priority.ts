// Priorities of requests: the range of the option, and what one unit means in the queue.

export const MAX_PRIORITY = 10
/** Places that a request moves ahead in the queue per unit of priority. */
export const PRIORITY_STEP = 64
