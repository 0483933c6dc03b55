"""The sockets. They drain themselves: asyncio's datagram transport costs two system calls more."""
