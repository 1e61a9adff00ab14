// Context-tree weighting the plain way: one node a context and depth, created when first visited, the odds of
// "leaf here" to "split here" in float64. Prints bits, processor seconds and nodes. Usage: peer DEPTH < file of bytes 0 and 1.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <iterator>
#include <vector>

struct Node {
    double odds = 1.0;
    int32_t counts[2] = {0, 0};
    int32_t children[2] = {0, 0};
};

int main(int, char **arguments) {
    const int depth = std::atoi(arguments[1]);
    const std::vector<char> bits(std::istreambuf_iterator<char>(std::cin), {});
    const std::clock_t started = std::clock();
    std::vector<Node> nodes(1);
    std::vector<int32_t> path(depth + 1);
    double total = 0.0;
    for (size_t t = 0; t < bits.size(); ++t) {
        for (int d = 0; d < depth; ++d) {
            const int bit = int(t) - 1 - d >= 0 ? bits[t - 1 - d] : 0;
            int32_t child = nodes[path[d]].children[bit];
            if (child == 0) {
                child = int32_t(nodes.size());
                nodes.emplace_back();
                nodes[path[d]].children[bit] = child;
            }
            path[d + 1] = child;
        }
        const int bit = bits[t];
        double value = 0.0;
        for (int d = depth; d >= 0; --d) {
            Node &node = nodes[path[d]];
            const double here = (node.counts[bit] + 0.5) / (node.counts[0] + node.counts[1] + 1.0);
            const double below = d == depth ? here : value;
            value = d == depth ? here : (node.odds * here + below) / (node.odds + 1.0);
            node.odds = std::fmin(std::fmax(node.odds * here / below, 1e-300), 1e300);
            ++node.counts[bit];
        }
        total -= std::log2(value);
    }
    const double seconds = double(std::clock() - started) / CLOCKS_PER_SEC;
    std::printf("%.9f %.6f %zu\n", total, seconds, nodes.size());
}
