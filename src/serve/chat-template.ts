// Chat templates as the server uses them; the renderer itself belongs to the tokenizer's room.
export * from '../tokenizer/chat-template.js'
