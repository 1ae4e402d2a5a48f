// The same servers over Asio's C++20 coroutines, one thread: asio PORT [echo|bulk|gather] [BUFFER BYTES]
#include <asio.hpp>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

using asio::awaitable;
using asio::use_awaitable;
using asio::ip::tcp;

namespace {

std::array<unsigned char, 65536> chunk;
std::size_t buffer_size = 1024;

awaitable<void> echo(tcp::socket& socket) {
  std::vector<unsigned char> buffer(buffer_size);
  for (;;) {
    const auto count = co_await socket.async_read_some(asio::buffer(buffer), use_awaitable);
    co_await asio::async_write(socket, asio::buffer(buffer, count), use_awaitable);
  }
}

awaitable<void> bulk(tcp::socket& socket) {
  for (;;) co_await asio::async_write(socket, asio::buffer(chunk), use_awaitable);
}

awaitable<void> gather(tcp::socket& socket) {
  for (std::size_t place = 0;; place = (place + 2048) % chunk.size()) {
    std::array<asio::const_buffer, 64> pieces;
    for (std::size_t i = 0; i < pieces.size(); i++) pieces[i] = asio::buffer(&chunk[place + 32 * i], 32);
    co_await asio::async_write(socket, pieces, use_awaitable);
  }
}

awaitable<void> serve(tcp::socket socket, awaitable<void> (*handler)(tcp::socket&)) {
  try {
    co_await handler(socket);
  } catch (const std::system_error&) {
    // The end of the connection.
  }
}

awaitable<void> listen(tcp::acceptor& acceptor, awaitable<void> (*handler)(tcp::socket&)) {
  for (;;) {
    auto socket = co_await acceptor.async_accept(use_awaitable);
    socket.set_option(tcp::no_delay(true));
    asio::co_spawn(acceptor.get_executor(), serve(std::move(socket), handler), asio::detached);
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (std::uint32_t i = 0; i < chunk.size(); i++) {
    const std::uint32_t mixed = i * 2654435761u;
    chunk[i] = ((mixed ^ mixed >> 15) * 2246822519u) >> 24;
  }
  const std::string mode = argc > 2 ? argv[2] : "echo";
  if (argc > 3) buffer_size = std::strtoul(argv[3], nullptr, 10);
  asio::io_context context(1);
  const auto port = static_cast<unsigned short>(argc > 1 ? std::atoi(argv[1]) : 0);
  tcp::acceptor acceptor(context, {asio::ip::address_v4::loopback(), port});
  std::printf("listening on tcp://127.0.0.1:%d\n", acceptor.local_endpoint().port());
  std::fflush(stdout);
  asio::co_spawn(context, listen(acceptor, mode == "bulk" ? bulk : mode == "gather" ? gather : echo), asio::detached);
  context.run();
}
